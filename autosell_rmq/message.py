"""What travels: the properties, the received message and the publication, all immutable.

Their dataclasses have no slots, so that `records.made` can make them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol, TypedDict, Unpack, cast

from autosell_rmq.exceptions import ClosedError

type Headers = Mapping[str, object]

NO_HEADERS: Final[Headers] = MappingProxyType({})

# Our headers. Values come from anybody who may publish, so every reader clamps them.
ATTEMPT: Final = "x-autosell-attempt"  # the attempt that this copy is for: 2 on the first retry
RETRY_COUNT: Final = "x-retry-count"  # attempt - 1, the header that autosell-rmq 0.1.4 reads and writes
DUE: Final = "x-autosell-due"  # not to be handled before; milliseconds since the epoch
DEADLINE: Final = "x-autosell-deadline"  # not to be started after; milliseconds since the epoch
BUSY: Final = "x-autosell-busy"  # how often the message waited for a duplicate that was being handled
DELIVERIES: Final = "x-autosell-deliveries"  # our delivery count, for queues whose broker keeps none
FIRST_EXCHANGE: Final = "x-autosell-exchange"  # where the sender published it, kept through the delay line
FIRST_ROUTING_KEY: Final = "x-autosell-routing-key"
CONFLICT: Final = "x-idempotency-conflict"  # on a reply: the id was used before with another body
REASON_CODE: Final = "x-autosell-reason-code"  # on a dead letter: why, in a word
REPLY_TYPE: Final = "reply"  # the AMQP type property of our replies
DIRECT_REPLY_TO: Final = "amq.rabbitmq.reply-to"

# Written by the broker or valid for one hop only; a copy must not carry them.
_BROKER_HEADERS: Final = frozenset(
    {"x-death", "x-delivery-count", "x-acquired-count", "x-opt-deaths", "cc", "bcc", "x-delay"}
)
_BROKER_PREFIXES: Final = ("x-first-death-", "x-last-death-")
_MAX_INT: Final = 2**53  # exact in every JSON and AMQP client


def int_header(headers: Headers, name: str, default: int = 0, *, most: int = _MAX_INT) -> int:
    """A header as a number from 0 to `most`; `default` where it is missing or no plain number."""
    value = headers.get(name)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 19:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return default
    return min(max(value, 0), most)


def header_bytes(value: object) -> int:
    """About how many bytes a header value takes on the wire, nested ones included."""
    if isinstance(value, Mapping):
        return sum(len(str(name)) + header_bytes(item) for name, item in value.items()) + 5
    if isinstance(value, list | tuple):
        return sum(map(header_bytes, value)) + 5
    return len(value) + 5 if isinstance(value, str | bytes) else 9


def printable(value: object, most: int = 500) -> str:
    """Foreign text for a log line: control characters escaped, cut to `most` characters."""
    text = str(value)
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def without_broker_headers(headers: Headers) -> dict[str, object]:
    """The sender's headers and ours, for a copy."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in _BROKER_HEADERS and not name.lower().startswith(_BROKER_PREFIXES)
    }


def milliseconds(moment: float) -> int:
    """Seconds since the epoch as the whole milliseconds that our headers carry, rounded up."""
    return -int(-moment * 1000 // 1)


def aware(seconds: float) -> dt.datetime | None:
    """Seconds since the epoch as an aware datetime; None where no calendar reaches."""
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (OverflowError, OSError, ValueError):
        return None


@dataclass(frozen=True, kw_only=True)
class Properties:
    """The AMQP basic properties. `expiration` is in seconds, `timestamp` aware."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Headers = NO_HEADERS
    persistent: bool = True
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: float | None = None
    message_id: str | None = None
    timestamp: dt.datetime | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A message on its way out. Publishing one returns when the broker has confirmed it."""

    body: bytes
    routing_key: str
    exchange: str = ""
    properties: Properties = Properties()
    mandatory: bool = True


class SendOptions(TypedDict, total=False):
    """The keyword options that every sending method takes.

    Keys:
        message_id: the sender's own id of this message; stamped when left out.
        headers: AMQP headers of yours; ours (``x-autosell-…``, ``x-retry-count``) win over them.
        priority: 0 to 255, for queues declared with ``max_priority``.
        ttl: seconds that the message may wait; then the broker dead-letters it.
        deadline: aware datetime after which no attempt is started (reason ``expired``).
        delay: seconds before it is handled, by the delay line; only to a queue.
        deliver_at: the same as an aware datetime.
        type: the AMQP type property, a name of the application's for the kind of message.
        outage_timeout: the setting of that name, for this call; 0 fails at once while the broker is away.
    """

    message_id: str
    headers: Headers
    priority: int
    ttl: float
    deadline: dt.datetime
    delay: float
    deliver_at: dt.datetime
    type: str
    outage_timeout: float


class MessageProducer(Protocol):
    """What `Message.producer` offers to an async handler; `RabbitMQProducer` documents it."""

    async def send_message(
        self,
        queue_name: str,
        message_data: object,
        wait_for_response: bool = True,
        timeout: float = 30.0,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> dict[str, Any]: ...

    async def send_fire_and_forget(
        self,
        queue_name: str,
        message_data: object,
        *,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> str: ...

    async def publish_to_exchange(
        self,
        exchange_name: str,
        routing_key: str,
        message_data: object,
        exchange_type: str = "topic",
        *,
        correlation_id: str | None = None,
        mandatory: bool = True,
        **options: Unpack[SendOptions],
    ) -> str: ...


class SyncMessageProducer(Protocol):
    """What `Message.sync_producer` offers to a sync handler: the same calls, blocking its thread."""

    def send_message(
        self,
        queue_name: str,
        message_data: object,
        wait_for_response: bool = True,
        timeout: float = 30.0,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> dict[str, Any]: ...

    def send_fire_and_forget(
        self,
        queue_name: str,
        message_data: object,
        *,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> str: ...

    def publish_to_exchange(
        self,
        exchange_name: str,
        routing_key: str,
        message_data: object,
        exchange_type: str = "topic",
        *,
        correlation_id: str | None = None,
        mandatory: bool = True,
        **options: Unpack[SendOptions],
    ) -> str: ...


class _NoProducer:
    """Stands in for the producer of a message that no app has handed to a handler."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # a protocol of Python's asks whether it is there
            raise AttributeError(name)
        raise ClosedError(f"this message has no producer for {name}(): a handler's message has one")


NO_PRODUCER: Final = cast("MessageProducer", _NoProducer())
NO_SYNC_PRODUCER: Final = cast("SyncMessageProducer", _NoProducer())


@dataclass(frozen=True, kw_only=True)
class Message:
    """A received message: what the wire said, and where its handling stands.

    Brokers make it with the first six fields; the pipeline adds the rest for the handler.

    Attributes:
        queue: the queue it was consumed from.
        exchange: where it was published last; after a retry one of the delay line's (see `first_exchange`).
        redelivered: the broker handed it out before and got no ack.
        delivery_count: failed deliveries that the broker counted (quorum queues), else None.
        malformed: what of its properties cannot be read; it is dead-lettered, with their bytes, `wire`.
        attempt: 1 on the first run of the handler, 2 on its first retry.
        idempotency_key: what the store knows it by; hand it to other services as their idempotency key.
        producer: publishes from an async handler, over the app's own connection.
        sync_producer: the same from a sync handler's thread.
    """

    queue: str
    body: bytes
    exchange: str = ""
    routing_key: str = ""
    properties: Properties = Properties()
    redelivered: bool = False
    delivery_count: int | None = None
    malformed: str | None = None
    wire: bytes = field(default=b"", repr=False)
    attempt: int = 1
    idempotency_key: str | None = None
    producer: MessageProducer = field(default=NO_PRODUCER, repr=False, compare=False)
    sync_producer: SyncMessageProducer = field(default=NO_SYNC_PRODUCER, repr=False, compare=False)

    @property
    def headers(self) -> Headers:
        return self.properties.headers

    @property
    def correlation_id(self) -> str | None:
        return self.properties.correlation_id

    @property
    def message_id(self) -> str | None:
        return self.properties.message_id

    @property
    def reply_to(self) -> str | None:
        return self.properties.reply_to

    @property
    def first_exchange(self) -> str:
        """The exchange that the sender published to, also after retries."""
        value = self.headers.get(FIRST_EXCHANGE)
        return value if isinstance(value, str) else self.exchange

    @property
    def first_routing_key(self) -> str:
        """The routing key that the sender used, also after retries."""
        value = self.headers.get(FIRST_ROUTING_KEY)
        return value if isinstance(value, str) else self.routing_key

    @property
    def due(self) -> dt.datetime | None:
        """The moment it was scheduled for, None when it was not."""
        return aware(int_header(self.headers, DUE) / 1000) if DUE in self.headers else None

    @property
    def deadline(self) -> dt.datetime | None:
        """The moment after which no attempt is started, None where none was asked for."""
        return aware(int_header(self.headers, DEADLINE) / 1000) if DEADLINE in self.headers else None
