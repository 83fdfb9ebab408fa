"""The shop."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """Customers, orders, and the mails about them."""

    name = "shop"
