"""Sending, from an event loop or from the threads beside it."""

from autosell_rmq.producer.blocking import BlockingProducer
from autosell_rmq.producer.prepared import PreparedSend
from autosell_rmq.producer.producer import RabbitMQProducer

__all__ = ["BlockingProducer", "PreparedSend", "RabbitMQProducer"]
