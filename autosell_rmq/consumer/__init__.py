"""Consuming: deliveries, their settlement, the drain, and the original library's `RabbitMQConsumer`."""

from autosell_rmq.consumer.group import ConsumerGroup
from autosell_rmq.consumer.rabbitmq_consumer import RabbitMQConsumer
from autosell_rmq.consumer.runner import Runner

__all__ = ["ConsumerGroup", "RabbitMQConsumer", "Runner"]
