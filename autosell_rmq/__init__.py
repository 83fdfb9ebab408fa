"""Dependable RabbitMQ messaging: no accepted message lost, every effect once, every failure visible.

The classes of the original library (`RabbitMQConsumer`, `RabbitMQProducer`), the app object (`RabbitMQ`)
and what handlers need.
"""

from autosell_rmq.app import RabbitMQ
from autosell_rmq.config import Binding, Settings
from autosell_rmq.consumer import RabbitMQConsumer
from autosell_rmq.exceptions import (
    AccessRefused,
    AutosellRmqError,
    BrokerError,
    BrokerUnavailable,
    ClosedError,
    ConfigError,
    DecodeError,
    EncodeError,
    MessageTooLarge,
    MissingExtra,
    PublishError,
    PublishNacked,
    PublishUnknown,
    PublishUnroutable,
    QueueNotFound,
    Reject,
    ReplyTimeout,
    RetryLater,
    StoreError,
    StoreUnavailable,
    TopologyMismatch,
)
from autosell_rmq.idempotency import IdempotencyStore, MemoryStore, RedisStore
from autosell_rmq.message import Message
from autosell_rmq.middleware import Middleware, Next
from autosell_rmq.producer import RabbitMQProducer
from autosell_rmq.router import Router
from autosell_rmq.sync import SyncRabbitMQProducer

__all__ = [
    "AccessRefused",
    "AutosellRmqError",
    "Binding",
    "BrokerError",
    "BrokerUnavailable",
    "ClosedError",
    "ConfigError",
    "DecodeError",
    "EncodeError",
    "IdempotencyStore",
    "MemoryStore",
    "Message",
    "MessageTooLarge",
    "Middleware",
    "MissingExtra",
    "Next",
    "PublishError",
    "PublishNacked",
    "PublishUnknown",
    "PublishUnroutable",
    "QueueNotFound",
    "RabbitMQ",
    "RabbitMQConsumer",
    "RabbitMQProducer",
    "RedisStore",
    "Reject",
    "ReplyTimeout",
    "RetryLater",
    "Router",
    "Settings",
    "StoreError",
    "StoreUnavailable",
    "SyncRabbitMQProducer",
    "TopologyMismatch",
]
