"""Sending what is in the outbox: at once for a handler that has committed, and whatever else is left there.

For `rmq_consume`, which has the app and its producer::

    store.outbox_flush = OutboxFlush(app.producer, settings)   # awaited by the store before each reply
    relay = Relay(app.producer, settings)
    task = asyncio.create_task(relay.run())                    # if settings.outbox.relay
    ...
    relay.stop()                                               # finishes the rows in hand
    await task                                                 # or cancel it, which is quicker
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable
from functools import partial

from django.db import connections, router

from autosell_rmq import RabbitMQProducer, ThreadPool
from autosell_rmq_django.conf import AppSettings
from autosell_rmq_django.models import OutboxMessage
from autosell_rmq_django.sending import InThread, Sender, in_pool

logger = logging.getLogger(__name__)

_FLUSHES = 8  # threads; each keeps a transaction open while its few rows are confirmed
_LONGEST_PAUSE = 30.0  # seconds between two looks while the database does not answer
_CLEANING = 60.0  # seconds between two deletions of what was sent long ago
_DELETED_AT_ONCE = 1000  # rows
_END = 5.0  # seconds that the end waits for a thread to close its connection


class OutboxFlush:
    """The `outbox_flush` of a `DatabaseStore`: sends the rows of a record, before its reply is sent.

    Args:
        producer: the app's own, connected.
        settings: their ``IDEMPOTENCY["DATABASE"]`` is where the rows are.
        using: alias of another database than that, which the store has.
        in_thread: runs a function beside the event loop, by default in threads of its own. Tests that keep a
            transaction open in their own thread need it there.
    """

    def __init__(
        self,
        producer: RabbitMQProducer,
        settings: AppSettings,
        *,
        using: str | None = None,
        in_thread: InThread | None = None,
    ) -> None:
        using = using or settings.idempotency.database
        if in_thread is None:
            pool = ThreadPool(_FLUSHES, name="autosell-rmq-outbox", at_end=connections.close_all)
            in_thread = in_pool(pool)
            weakref.finalize(self, pool.stop)
        self._sender = Sender(producer, settings, using=using, in_thread=in_thread)

    async def __call__(self, record_id: int) -> None:
        """Send the record's unsent rows in order, each confirmed; nothing when there is none.

        A row that nobody will ever take as things are (no such queue) is kept and reported in the log, and
        does not hold the reply up: the relay goes on trying.

        Raises:
            BrokerError: some row could not be sent now; the reply must wait.
            django.db.Error: the database did not answer. Rows may be sent and not marked; the next flush or
                the relay sends them again under their ids.
        """
        await self._sender.flush(record_id)


class Relay:
    """Sends the rows that nobody flushes, in every database that has the outbox; deletes old sent ones.

    Any number of relays may run at the same time, in this process or others.
    """

    def __init__(self, producer: RabbitMQProducer, settings: AppSettings) -> None:
        self._producer = producer
        self._settings = settings
        self._stopping = asyncio.Event()
        self._senders: list[Sender] = []

    async def run(self) -> None:
        """Send until `stop`; no failure of broker or database ends it.

        A cancellation gives the rows in hand up, which may then be sent twice, and waits until what was
        confirmed is marked, for at most a few seconds.
        """
        async with asyncio.TaskGroup() as group:
            for alias in connections:
                if router.allow_migrate_model(alias, OutboxMessage):
                    group.create_task(self._serve(alias), name=f"outbox relay {alias}")
        await self._stopping.wait()

    def stop(self) -> None:
        """Let `run` return once the rows in hand are settled. Idempotent."""
        self._stopping.set()
        for sender in self._senders:
            sender.halt()

    async def _serve(self, alias: str) -> None:
        pool = ThreadPool(1, name=f"autosell-rmq-relay-{alias}", at_end=connections.close_all)
        sender = Sender(self._producer, self._settings, using=alias, in_thread=in_pool(pool))
        self._senders.append(sender)
        try:
            if await self._patiently(alias, partial(_has_outbox, in_pool(pool), alias)):
                await self._serve_outbox(alias, sender)
        finally:
            self._senders.remove(sender)
            for thread in pool.stop():
                await asyncio.to_thread(thread.join, _END)

    async def _serve_outbox(self, alias: str, sender: Sender) -> None:
        clock = asyncio.get_running_loop().time
        clean_at = clock()
        while not self._stopping.is_set():
            await self._patiently(alias, sender.send_due)
            if clock() >= clean_at:
                deleted = await self._patiently(alias, partial(self._clean, sender))
                clean_at = clock() + (0 if deleted == _DELETED_AT_ONCE else _CLEANING)
            await self._pause(self._settings.outbox.interval)

    async def _clean(self, sender: Sender) -> int:
        return await sender.delete_sent(older_than=self._settings.outbox.retention, limit=_DELETED_AT_ONCE)

    async def _patiently[T](self, alias: str, step: Callable[[], Awaitable[T]]) -> T | None:
        """Try a step again until it works; None once the relay is to stop."""
        pause = self._settings.outbox.interval
        while not self._stopping.is_set():
            try:
                return await step()
            except Exception as error:  # noqa: BLE001 - the rows are safe, and the relay must go on
                logger.warning(
                    "the outbox in database %r cannot be served, next look in %.0f s: %r", alias, pause, error
                )
                await self._pause(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        return None

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass


async def _has_outbox(in_thread: InThread, alias: str) -> bool:
    def table_is_there() -> bool:
        return OutboxMessage._meta.db_table in connections[alias].introspection.table_names()

    there = await in_thread(table_is_there)
    if not there:
        logger.debug("the database %r has no outbox", alias)
    return there
