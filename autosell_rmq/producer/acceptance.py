"""Messages that somebody promises to have handled: sent under an id, and asked about by that id."""

from __future__ import annotations

import logging

from autosell_rmq.broker import Broker
from autosell_rmq.codec import Encoded, encode
from autosell_rmq.exceptions import IdConflict
from autosell_rmq.idempotency import IdempotencyStore, Note, Record, fingerprint, idempotency_key
from autosell_rmq.ids import new_id
from autosell_rmq.message import SendOptions
from autosell_rmq.producer.producer import RabbitMQProducer

logger = logging.getLogger(__name__)


class Acceptance:
    """Accepts messages and looks up what has become of them, in the open store that their consumer uses.

    Args:
        broker: its vhost is part of the keys.
        limit: bytes that a body may take.
    """

    def __init__(
        self, broker: Broker, producer: RabbitMQProducer, store: IdempotencyStore, *, limit: int
    ) -> None:
        self._broker = broker
        self._producer = producer
        self._store = store
        self._limit = limit
        self._warned = False

    async def accept(
        self, queue: str, data: object, correlation_id: str | None, options: SendOptions, *, here: bool
    ) -> str:
        """See `RabbitMQ.accept`; the queue's handler may be `here`, in this very app."""
        if not (here or self._store.durable or self._warned):
            self._warned = True
            logger.warning(
                "queue %s: what was accepted is noted in this process's memory, where its consumer does not"
                " look (give both the same store=RedisStore(…))",
                queue,
            )
        body = encode(data, limit=self._limit)
        correlation_id = correlation_id if correlation_id is not None else new_id()
        record = await self.lookup(queue, correlation_id)
        note = Note(
            state="accepted", fingerprint=fingerprint(body), queue=queue, correlation_id=correlation_id
        )
        if record is not None and record.fingerprint != note.fingerprint:
            raise IdConflict(queue, correlation_id)
        if record is not None and record.state in ("processing", "done"):
            return correlation_id
        # Noted before it is sent: afterwards the note could cover up that of a failure. A crash in between
        # leaves a note without a message, which is why what is only accepted is sent again.
        if record is None or record.state == "failed":
            await self._store.note(self._key(queue, correlation_id), note)
        return await self._producer.send_fire_and_forget(
            queue, Encoded(body), correlation_id=correlation_id, **options
        )

    async def lookup(self, queue: str, correlation_id: str) -> Record | None:
        """See `RabbitMQ.lookup`."""
        return await self._store.lookup(self._key(queue, correlation_id))

    def _key(self, queue: str, correlation_id: str) -> str:
        return idempotency_key(self._broker.vhost, queue, correlation_id)
