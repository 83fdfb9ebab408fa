"""RabbitMQ over aio-pika: the only room that knows the client library."""

from autosell_rmq.brokers.rabbitmq.broker import RabbitBroker

__all__ = ["RabbitBroker"]
