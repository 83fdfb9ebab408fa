"""Queues and the exchange, by one name for who sends and who handles."""

from django.conf import settings

ORDERS = f"{settings.RMQ_PREFIX}.orders"
PRICES = f"{settings.RMQ_PREFIX}.prices"
MAILS = f"{settings.RMQ_PREFIX}.mails"
EVENTS = f"{settings.RMQ_PREFIX}.events"
