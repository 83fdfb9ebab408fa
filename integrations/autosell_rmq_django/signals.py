"""Django signals of what happens to messages, and the log lines of the app.

::

    @receiver(message_dead_lettered, sender=create_order)   # or without a sender: of every handler
    def alert(sender, message, queue, attempt, reason, **kwargs): ...

Receivers do not hold the messages up and may query the database: plain functions run one after the other in
asgiref's thread, the one of async handlers' queries; ``async def`` ones as tasks. What a receiver raises is
logged and changes nothing for the message. They are told afterwards: what has to happen together with the
message's effect belongs into the handler.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from asgiref.sync import sync_to_async
from django.dispatch import Signal

from autosell_rmq import MessageEvent
from autosell_rmq_django.connections import refresh

logger = logging.getLogger("autosell_rmq_django")

# The sender is the handler as it was decorated. Each has the arguments message (a `Message` of the core),
# queue (its name) and attempt (which run of the handler it is about, from 1), and:
message_received = Signal()  # nothing more; sent before anything else is done
message_handled = Signal()  # nothing more; its result is stored
message_failed = Signal()  # error: what the attempt raised
message_dead_lettered = Signal()  # reason: the code of the dead letter

_SIGNALS = {
    "received": message_received,
    "handled": message_handled,
    "failed": message_failed,
    "dead_lettered": message_dead_lettered,
}
_MOST_WAITING = 10_000  # events; beyond, receivers are too slow, and further events are left out


_sending: set[asyncio.Task[None]] = set()


class SignalObserver:
    """Sends the signals of one app: an `Observer` of the core.

    Args:
        senders: the handler of each queue.
    """

    def __init__(self, senders: Mapping[str, object]) -> None:
        self._senders = senders
        self._skipping = False

    def __call__(self, event: MessageEvent) -> None:
        """Called on the event loop; returns at once."""
        signal = _SIGNALS.get(event.kind)
        sender = self._senders.get(event.message.queue)
        if signal is None or not signal.has_listeners(sender) or self._is_full():
            return
        task = asyncio.get_running_loop().create_task(_send(signal, sender, event))
        _sending.add(task)
        task.add_done_callback(_sending.discard)

    def _is_full(self) -> bool:
        full = len(_sending) >= _MOST_WAITING
        if full and not self._skipping:
            logger.error("%d events wait for receivers of signals: further ones are left out", _MOST_WAITING)
        self._skipping = full
        return full


async def finish(timeout: float) -> None:
    """Wait for the receivers of this event loop; cancel those that take longer than `timeout` seconds."""
    loop = asyncio.get_running_loop()
    tasks = [task for task in _sending if task.get_loop() is loop]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


async def _send(signal: Signal, sender: object, event: MessageEvent) -> None:
    arguments: dict[str, object] = {
        "message": event.message,
        "queue": event.message.queue,
        "attempt": event.attempt,
    }
    if event.kind == "failed":
        arguments["error"] = event.error
    if event.kind == "dead_lettered":
        arguments["reason"] = event.reason
    # Django itself logs what a receiver raises, through django.dispatch.
    await signal.asend_robust(sender=sender, **arguments)
    await sync_to_async(refresh)()


def log(event: MessageEvent) -> None:
    """An `Observer`: one line for each event, with its facts as attributes of the record.

    The core's own loggers (``autosell_rmq…``) warn of failures in words; these lines are for counting.
    """
    level = logging.DEBUG if event.kind in ("received", "settled") else logging.INFO
    if not logger.isEnabledFor(level):
        return
    message = event.message
    facts = {
        "event": event.kind,
        "queue": message.queue,
        "message_id": message.message_id,
        "correlation_id": message.correlation_id,
        "attempt": event.attempt,
    }
    if event.error is not None:
        facts["error_type"] = type(event.error).__name__
    if event.reason is not None:
        facts["reason"] = event.reason
    words = " ".join(f"{name}={_shown(value)}" for name, value in facts.items() if name != "event")
    logger.log(level, "message %s: %s", event.kind, words, extra=facts)


def _shown(value: object) -> str:
    text = str(value)[:200]
    return text if text.isprintable() and " " not in text else ascii(text)
