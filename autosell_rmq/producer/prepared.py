"""A send that is decided now and carried out later: checked, encoded, its ids fixed."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass, field
from typing import Self, Unpack

from autosell_rmq.codec import Encoded
from autosell_rmq.config.check import one_of
from autosell_rmq.exceptions import EncodeError
from autosell_rmq.message import MessageProducer, Publication, SendOptions, SyncMessageProducer
from autosell_rmq.producer import publications

_SHORT_STRING = 255  # bytes that AMQP has for an id or a routing key
_BODY = 16 * 1024 * 1024  # bytes; the default of `Settings.max_body_bytes`


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSend:
    """A message for a queue or an event for an exchange, to be sent when the time has come.

    What is wrong with it is told when it is prepared, and the data may change afterwards. Its ids are part
    of it: sent twice, it is the same message. A delay counts from its preparation.

    Attributes:
        body: the data as JSON.
        routing_key: for a message, the name of its queue.
        exchange: empty for a message to a queue.
        exchange_type: of the exchange; empty for a message to a queue.
        options: the others of the sending call, a delay as its ``deliver_at``.
    """

    body: bytes = field(repr=False)
    routing_key: str
    correlation_id: str
    message_id: str
    exchange: str = ""
    exchange_type: str = ""
    mandatory: bool = True
    options: SendOptions = field(default_factory=SendOptions)

    @classmethod
    def to_queue(
        cls,
        queue_name: str,
        message_data: object,
        *,
        correlation_id: str | None = None,
        limit: int = _BODY,
        **options: Unpack[SendOptions],
    ) -> Self:
        """Prepare a `RabbitMQProducer.send_fire_and_forget` whose body may take `limit` bytes.

        Raises:
            EncodeError: the data is no JSON, or too large; an id is too long.
            ConfigError: an option is wrong.
        """
        now = time.time()
        publication = publications.to_queue(
            queue_name, message_data, correlation_id, options, now=now, limit=limit
        )
        return cls._of(publication, _fixed(options, now), routing_key=queue_name)

    @classmethod
    def to_exchange(
        cls,
        exchange_name: str,
        routing_key: str,
        message_data: object,
        exchange_type: str = "topic",
        *,
        correlation_id: str | None = None,
        mandatory: bool = True,
        limit: int = _BODY,
        **options: Unpack[SendOptions],
    ) -> Self:
        """Prepare a `RabbitMQProducer.publish_to_exchange`; raises as `to_queue`."""
        kind: str = getattr(exchange_type, "value", exchange_type)
        one_of("exchange_type", kind, "topic", "direct", "fanout", "headers")
        now = time.time()
        publication = publications.to_exchange(
            exchange_name,
            routing_key,
            message_data,
            correlation_id,
            options,
            now=now,
            limit=limit,
            mandatory=mandatory,
        )
        return cls._of(
            publication,
            _fixed(options, now),
            routing_key=routing_key,
            exchange=exchange_name,
            exchange_type=kind,
        )

    @classmethod
    def _of(
        cls,
        publication: Publication,
        options: SendOptions,
        *,
        routing_key: str,
        exchange: str = "",
        exchange_type: str = "",
    ) -> Self:
        properties = publication.properties
        return cls(
            body=publication.body,
            routing_key=_short("routing_key", routing_key),
            correlation_id=_short("correlation_id", properties.correlation_id),
            message_id=_short("message_id", properties.message_id),
            exchange=exchange,
            exchange_type=exchange_type,
            mandatory=publication.mandatory,
            options=options,
        )

    async def send(self, producer: MessageProducer, **override: Unpack[SendOptions]) -> None:
        """Send it; returns, and raises, as the call that it was prepared for, but for what is overridden."""
        if self.exchange:
            await producer.publish_to_exchange(
                self.exchange,
                self.routing_key,
                Encoded(self.body),
                self.exchange_type,
                correlation_id=self.correlation_id,
                mandatory=self.mandatory,
                **self._options(override),
            )
        else:
            await producer.send_fire_and_forget(
                self.routing_key,
                Encoded(self.body),
                correlation_id=self.correlation_id,
                **self._options(override),
            )

    def send_sync(self, producer: SyncMessageProducer) -> None:
        """The same by a producer that blocks its caller."""
        if self.exchange:
            producer.publish_to_exchange(
                self.exchange,
                self.routing_key,
                Encoded(self.body),
                self.exchange_type,
                correlation_id=self.correlation_id,
                mandatory=self.mandatory,
                **self._options(),
            )
        else:
            producer.send_fire_and_forget(
                self.routing_key, Encoded(self.body), correlation_id=self.correlation_id, **self._options()
            )

    def _options(self, override: SendOptions | None = None) -> SendOptions:
        return {**self.options, **(override or {}), "message_id": self.message_id}


def _fixed(options: SendOptions, now: float) -> SendOptions:
    """The options without what is kept beside them, and with the moment in place of the delay."""
    fixed: SendOptions = {**options}
    fixed.pop("message_id", None)
    delay = fixed.pop("delay", None)
    if delay is not None:
        fixed["deliver_at"] = dt.datetime.fromtimestamp(now + delay, dt.UTC)
    return fixed


def _short(name: str, value: str | None) -> str:
    try:
        size = len(value.encode()) if value is not None else 0
    except (UnicodeEncodeError, AttributeError):
        raise EncodeError(f"{name}={value!r}: expected a string of valid Unicode") from None
    if size > _SHORT_STRING:
        raise EncodeError(f"{name} is {size} bytes long; AMQP takes {_SHORT_STRING} at most")
    return value or ""
