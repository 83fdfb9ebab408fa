"""The client library's errors in our words, most specific first, always in one line."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from typing import Any, Final

from aiormq import exceptions as amqp
from aiormq.abc import AbstractChannel

from autosell_rmq.brokers.rabbitmq import tls
from autosell_rmq.brokers.rabbitmq.mismatch import mismatch
from autosell_rmq.config import BrokerURL
from autosell_rmq.exceptions import (
    AccessRefused,
    AutosellRmqError,
    BrokerError,
    BrokerUnavailable,
    QueueNotFound,
    TopologyMismatch,
)

logger = logging.getLogger(__name__)

_LOST = "the connection to RabbitMQ was lost"

# What a broker says when it closes a connection or a channel: "ACCESS_REFUSED - …".
_BROKER_TEXT = re.compile(r"[A-Z]+(?:_[A-Z]+)+ - [^\"]+?(?=['\"],|['\"]\)|['\"]>|$)")

BLOCKED = "RabbitMQ takes no messages at the moment: a memory or disk alarm"

# Everything that a lost connection or a closed channel can look like from inside an await.
LOST = (amqp.AMQPError, amqp.ChannelInvalidStateError, ConnectionError, RuntimeError, EOFError)


def broker_text(error: BaseException) -> str:
    """What the broker itself said, else the error's own words, in one line."""
    said = _BROKER_TEXT.search(str(error)) or _BROKER_TEXT.search(repr(error))
    text = said.group() if said else (str(error) or type(error).__name__)
    return " ".join(text.split())


@contextmanager
def bare_cancellation(error: type[BrokerError]) -> Generator[None]:
    """Turn a `CancelledError`, or a bare `Exception`, of the client library's own making into `error`.

    aiormq ends with them what waits on a channel that closes; nobody cancelled the caller then.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise error(_LOST) from None
    except Exception as bare:
        if type(bare) is not Exception:
            raise
        raise error(_LOST) from None


GOODBYE = 2.0  # seconds for the answer to a cancel or a close; a stop waits for a few of them in a row


async def closed(closing: Awaitable[object], timeout: float = GOODBYE) -> None:
    """Wait for a connection or a channel to close; however that fails, it is of no use any more."""
    try:
        with bare_cancellation(BrokerUnavailable):
            async with asyncio.timeout(timeout):
                await closing
    except Exception as error:  # noqa: BLE001 - a bug of the client's would end the task that reconnects
        logger.debug("while closing: %s", error)


async def channel_closed(channel: AbstractChannel) -> None:
    """The same for a channel, whose close goes on beyond that time.

    Cancelled, the client library sends a second channel.close, over which RabbitMQ closes the connection.
    """
    closing = asyncio.ensure_future(channel.close())
    _closing.add(closing)
    closing.add_done_callback(_end)
    await asyncio.wait([closing], timeout=GOODBYE)


_closing: Final[set[asyncio.Future[Any]]] = set()


def _end(closing: asyncio.Future[Any]) -> None:
    _closing.discard(closing)
    if not closing.cancelled() and (error := closing.exception()) is not None:
        logger.debug("while closing: %s", error)


def connecting(error: BaseException, url: BrokerURL) -> AutosellRmqError:
    """Why a connection could not be opened; only `BrokerUnavailable` is worth another attempt."""
    cause = error.__cause__
    for why in (error, cause):
        if isinstance(why, ssl.SSLError):
            return tls.failed(why, url)
    text = broker_text(error)
    if isinstance(error, amqp.ProbableAuthenticationError):
        return AccessRefused(f"RabbitMQ refused the login of user {url.user!r} at {url}: {text}")
    if isinstance(error, amqp.AuthenticationError):
        return AccessRefused(f"RabbitMQ at {url} offers no login mechanism that we know: {text}")
    if isinstance(error, amqp.InvalidFrameError) and "Connection.OpenOk" in text:
        # The answer to connection.open was connection.close; the client library drops what it said.
        text = "NOT_ALLOWED - no such vhost, no permission for it, or it is down"
    if "NOT_ALLOWED" in text or "ACCESS_REFUSED" in text:
        return AccessRefused(f"RabbitMQ refused vhost {url.vhost!r} to user {url.user!r} at {url}: {text}")
    if isinstance(error, TimeoutError):
        return BrokerUnavailable(f"RabbitMQ at {url} did not answer in time")
    return BrokerUnavailable(f"cannot connect to RabbitMQ at {url}: {text}")


def declaring(error: BaseException, name: str) -> AutosellRmqError:
    """Why a queue or exchange could not be declared or consumed."""
    text = broker_text(error)
    if isinstance(error, amqp.ChannelPreconditionFailed):
        return TopologyMismatch(mismatch(name, text))
    if isinstance(error, amqp.ChannelNotFoundEntity):
        return QueueNotFound(f"{name!r} does not exist: {text}")
    if isinstance(error, amqp.ChannelAccessRefused | amqp.ChannelLockedResource):
        return AccessRefused(f"RabbitMQ refused {name!r}: {text}")
    if "NOT_IMPLEMENTED" in text or "INTERNAL_ERROR" in text:
        return TopologyMismatch(f"RabbitMQ cannot declare {name!r} like this: {text}")
    return BrokerUnavailable(f"the connection was lost while {name!r} was declared: {text}")
