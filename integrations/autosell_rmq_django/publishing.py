"""The producer of the whole process: for views, scripts and threads, now or after the commit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Unpack, cast

from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS, transaction

from autosell_rmq import (
    AutosellRmqError,
    ConfigError,
    PreparedSend,
    SendOptions,
    Settings,
    SettingsKwargs,
    SyncRabbitMQProducer,
)
from autosell_rmq_django import conf

logger = logging.getLogger(__name__)


class DjangoProducer(SyncRabbitMQProducer):
    """`SyncRabbitMQProducer`, which can also wait for the commit of a transaction.

    ``autosell_rmq_django.producer`` is the one of this process. It is made, with what ``AUTOSELL_RMQ`` says,
    when it is needed first; all threads share its connection; a forked child connects anew; it is closed at
    exit.

    ::

        from autosell_rmq_django import producer

        reply = producer.send_message("billing", {"order": 1})            # sync code
        reply = await producer.asend_message("billing", {"order": 1})     # async code, on any loop
        with transaction.atomic():
            order.save()
            producer.send_on_commit("billing", {"order": order.pk})       # if, and when, it is committed
    """

    def __init__(
        self, connection_url: str | Sequence[str] | None = None, **settings: Unpack[SettingsKwargs]
    ) -> None:
        super().__init__(connection_url, **settings)
        self._limit = Settings.build(connection_url, **settings).max_body_bytes

    def send_on_commit(
        self,
        queue_name: str,
        message_data: object,
        *,
        using: str | None = None,
        correlation_id: str | None = None,
        outbox: bool = False,
        ordering_key: str = "",
        **options: Unpack[SendOptions],
    ) -> str:
        """Send to a queue once the current transaction is committed, and not if it is rolled back.

        Without a transaction it is sent at once. The data is encoded now: to change it later changes nothing.

        In the transaction of an exactly-once handler, the message becomes a row of the outbox: it is sent
        before the handler's reply, and not lost if the process dies. Elsewhere it waits in this process,
        which may die between the commit and the send; and if the send fails, that is logged, with the ids,
        and nothing more. Where this does not do, ``outbox=True`` writes a row, and the relay of
        ``rmq_consume`` sends it.

        Args:
            queue_name: an existing queue.
            message_data: anything that pydantic writes as JSON.
            using: alias of the database whose transaction is meant; by default ``default``.
            correlation_id: by default a new one.
            outbox: keep it in the database of `using` until it is sent.
            ordering_key: messages of one key in the outbox are sent in the order that they were written in.
            options: see `SendOptions`; a delay counts from now.

        Returns:
            The correlation id that it will carry.

        Raises:
            EncodeError: the data is no JSON, or too large.
            ConfigError: an option is wrong.
            BrokerError: without a transaction, as `RabbitMQProducer.send_fire_and_forget`.
        """
        send = PreparedSend.to_queue(
            queue_name, message_data, correlation_id=correlation_id, limit=self._limit, **options
        )
        _on_commit(send, using or DEFAULT_DB_ALIAS, outbox=outbox, ordering_key=ordering_key)
        return send.correlation_id

    def publish_on_commit(
        self,
        exchange_name: str,
        routing_key: str,
        message_data: object,
        exchange_type: str = "topic",
        *,
        using: str | None = None,
        correlation_id: str | None = None,
        mandatory: bool = True,
        outbox: bool = False,
        ordering_key: str = "",
        **options: Unpack[SendOptions],
    ) -> str:
        """Publish an event once the current transaction is committed; see `send_on_commit`.

        Without a transaction it raises as `RabbitMQProducer.publish_to_exchange`.
        """
        send = PreparedSend.to_exchange(
            exchange_name,
            routing_key,
            message_data,
            exchange_type,
            correlation_id=correlation_id,
            mandatory=mandatory,
            limit=self._limit,
            **options,
        )
        _on_commit(send, using or DEFAULT_DB_ALIAS, outbox=outbox, ordering_key=ordering_key)
        return send.correlation_id


def _on_commit(send: PreparedSend, alias: str, *, outbox: bool, ordering_key: str) -> None:
    # Imported here: what they import needs loaded apps, and `producer` is imported before.
    from autosell_rmq_django import outbox as rows
    from autosell_rmq_django.store.context import current_transaction, mark_outbox

    handling = current_transaction()
    if handling is not None and handling.alias == alias:
        rows.write(send, using=alias, ordering_key=ordering_key, record_id=handling.record_id)
        mark_outbox()
    elif outbox:
        rows.write(send, using=alias, ordering_key=ordering_key)
    elif ordering_key:
        raise ConfigError(f"ordering_key={ordering_key!r}: an order is kept in the outbox only: outbox=True")
    elif _sends_at_once(alias):
        send.send_sync(producer)
    else:
        transaction.on_commit(partial(_send_after_commit, send), using=alias, robust=True)


def _sends_at_once(alias: str) -> bool:
    """Whether no transaction is open; it opens no connection. ``on_commit`` refuses autocommit turned off."""
    connection = transaction.get_connection(alias)
    return not connection.in_atomic_block and (connection.connection is None or connection.get_autocommit())


def _send_after_commit(send: PreparedSend) -> None:
    try:
        send.send_sync(producer)
    except AutosellRmqError as error:
        # The commit has happened: nobody up there could take it back, or would expect this error.
        logger.error(  # noqa: TRY400 - a broker that is down needs no traceback
            "committed, but not sent to %s %s, message_id=%r, correlation_id=%r: %s",
            f"exchange {send.exchange}" if send.exchange else "queue",
            send.routing_key,
            send.message_id,
            send.correlation_id,
            error,
        )


class _Current:
    """Stands for the `DjangoProducer` of the settings, as they are at the moment of each use."""

    def __init__(self) -> None:
        self._made: dict[str, DjangoProducer] = {}

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # asked by tools that look at it, which is no use
            raise AttributeError(name)
        return getattr(self._producer(), name)

    def __repr__(self) -> str:
        return "<the producer of AUTOSELL_RMQ>"

    def _producer(self) -> DjangoProducer:
        if (made := self._made.get("current")) is not None:
            return made
        settings = conf.get_settings()
        # Without a lock, which a fork could leave locked: several cost nothing before their first use.
        return self._made.setdefault("current", DjangoProducer(settings.url, **settings.core))

    def forget(self, *, setting: str, **_: object) -> None:
        """``setting_changed``: the next use reads the settings anew."""
        if setting == conf.NAME and (made := self._made.pop("current", None)) is not None:
            made.close()


_current = _Current()
setting_changed.connect(_current.forget, dispatch_uid="autosell_rmq.producer")

producer = cast("DjangoProducer", _current)
