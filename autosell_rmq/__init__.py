"""Dependable RabbitMQ messaging: no accepted message lost, every effect once, every failure visible.

The classes of the original library (`RabbitMQConsumer`, `RabbitMQProducer`), the app object (`RabbitMQ`)
and what handlers need.
"""

from autosell_rmq.app import RabbitMQ
from autosell_rmq.config import Binding, HandlerKwargs, HandlerOptions, Settings, SettingsKwargs
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
    InProgress,
    LeaseLost,
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
from autosell_rmq.idempotency import (
    Abandoned,
    Call,
    Claim,
    IdempotencyStore,
    LeaseStore,
    MemoryStore,
    Record,
    RedisStore,
    Stored,
)
from autosell_rmq.message import Message, SendOptions
from autosell_rmq.middleware import Middleware, Next
from autosell_rmq.pipeline import MessageEvent, Observer, ThreadPool
from autosell_rmq.producer import PreparedSend, RabbitMQProducer
from autosell_rmq.router import Registration, Router
from autosell_rmq.sync import SyncRabbitMQProducer

__all__ = [
    "Abandoned",
    "AccessRefused",
    "AutosellRmqError",
    "Binding",
    "BrokerError",
    "BrokerUnavailable",
    "Call",
    "Claim",
    "ClosedError",
    "ConfigError",
    "DecodeError",
    "EncodeError",
    "HandlerKwargs",
    "HandlerOptions",
    "IdempotencyStore",
    "InProgress",
    "LeaseLost",
    "LeaseStore",
    "MemoryStore",
    "Message",
    "MessageEvent",
    "MessageTooLarge",
    "Middleware",
    "MissingExtra",
    "Next",
    "Observer",
    "PreparedSend",
    "PublishError",
    "PublishNacked",
    "PublishUnknown",
    "PublishUnroutable",
    "QueueNotFound",
    "RabbitMQ",
    "RabbitMQConsumer",
    "RabbitMQProducer",
    "Record",
    "RedisStore",
    "Registration",
    "Reject",
    "ReplyTimeout",
    "RetryLater",
    "Router",
    "SendOptions",
    "Settings",
    "SettingsKwargs",
    "StoreError",
    "StoreUnavailable",
    "Stored",
    "SyncRabbitMQProducer",
    "ThreadPool",
    "TopologyMismatch",
]
