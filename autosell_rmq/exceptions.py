"""Every error that the library raises, in one tree.

::

    AutosellRmqError
    ├── ConfigError (ValueError)
    │   ├── TopologyMismatch
    │   └── MissingExtra (ImportError)
    ├── EncodeError (ValueError)
    │   └── MessageTooLarge
    ├── DecodeError (ValueError)
    ├── IdConflict (ValueError)
    ├── BrokerError
    │   ├── BrokerUnavailable (ConnectionError)
    │   ├── AccessRefused
    │   ├── QueueNotFound (LookupError)
    │   ├── DeliveryLost
    │   └── PublishError
    │       ├── PublishUnroutable
    │       ├── PublishNacked
    │       └── PublishUnknown
    ├── ReplyTimeout (TimeoutError)
    ├── ClosedError (RuntimeError)
    ├── StoreError
    │   ├── InProgress
    │   ├── LeaseLost
    │   └── StoreUnavailable (ConnectionError)
    └── HandlerDecision
        ├── Reject
        └── RetryLater
"""

from __future__ import annotations

import math
from typing import override


class AutosellRmqError(Exception):
    """The root of every error of this library."""


class ConfigError(AutosellRmqError, ValueError):
    """A setting is wrong; the message names it and says what to write instead."""


class TopologyMismatch(ConfigError):
    """A queue or exchange exists with other arguments than ours (AMQP 406)."""


class MissingExtra(ConfigError, ImportError):
    """A feature needs an optional dependency that is not installed."""


class EncodeError(AutosellRmqError, ValueError):
    """A payload or a result cannot be written as JSON."""


class MessageTooLarge(EncodeError):
    """A body is over ``max_body_bytes``."""


class DecodeError(AutosellRmqError, ValueError):
    """A body is not UTF-8 JSON within the limits."""


class IdConflict(AutosellRmqError, ValueError):
    """An id was used before with another body."""

    def __init__(self, queue: str, correlation_id: str) -> None:
        super().__init__(queue, correlation_id)
        self.queue = queue
        self.correlation_id = correlation_id

    @override
    def __str__(self) -> str:
        return f"queue {self.queue!r}: the id {self.correlation_id!r} was used before with another body"


class BrokerError(AutosellRmqError):
    """The broker refused or could not do what was asked."""


class BrokerUnavailable(BrokerError, ConnectionError):
    """There is no connection to the broker, or it was lost."""


class AccessRefused(BrokerError):
    """The broker refused the login, the vhost or a permission."""


class QueueNotFound(BrokerError, LookupError):
    """A queue or exchange does not exist and may not be declared here."""


class DeliveryLost(BrokerError):
    """The channel of a delivery is gone: the broker will deliver the message again."""


class PublishError(BrokerError):
    """A publish did not end in a confirm; the subclass says what is known of the message."""


class PublishUnroutable(PublishError):
    """No queue takes the message: it was returned by the broker and is stored nowhere."""


class PublishNacked(PublishError):
    """The broker refused the message (queue full, or its node is down): it is not stored."""


class PublishUnknown(PublishError):
    """No confirm came: the message may or may not be stored. Send again under the same id."""


class ReplyTimeout(AutosellRmqError, TimeoutError):
    """No reply came in time. The request is still accepted and will be handled.

    Attributes:
        correlation_id: send again with it to get the stored reply without a second effect.
    """

    def __init__(self, queue: str, correlation_id: str, timeout: float) -> None:
        super().__init__(queue, correlation_id, timeout)
        self.queue = queue
        self.correlation_id = correlation_id
        self.timeout = timeout

    @override
    def __str__(self) -> str:
        return (
            f"no reply from queue {self.queue!r} within {self.timeout:g} s "
            f"(correlation_id={self.correlation_id!r}); the request itself was accepted"
        )


class ClosedError(AutosellRmqError, RuntimeError):
    """The object was closed, or its event loop is another one."""


class StoreError(AutosellRmqError):
    """The idempotency store could not answer."""


class InProgress(StoreError):
    """Another delivery with this key is being handled right now."""


class LeaseLost(StoreError):
    """The lease ran out while the handler ran and another worker took the key over."""


class StoreUnavailable(StoreError, ConnectionError):
    """The idempotency store cannot be reached. The message comes back by the delay line."""


class HandlerDecision(AutosellRmqError):
    """What a handler raises to decide the fate of its message itself."""


class Reject(HandlerDecision):
    """Raised by a handler: dead-letter the message at once, with this reason."""


class RetryLater(HandlerDecision):
    """Raised by a handler: try again later; it counts as an attempt like any failure.

    Args:
        reason: goes to the log, and to the dead letter should this attempt be the last.
        delay: seconds until the next attempt; by default the retry policy's.
    """

    def __init__(self, reason: str = "", *, delay: float | None = None) -> None:
        super().__init__(reason)
        if delay is not None and not _is_delay(delay):
            raise ConfigError(f"RetryLater(delay={delay!r}): a delay is a number of seconds >= 0")
        self.delay = delay


def _is_delay(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf
