"""The client library's errors in our words, most specific first, always in one line."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Generator
from contextlib import contextmanager

from aiormq import exceptions as amqp

from autosell_rmq.config import BrokerURL
from autosell_rmq.exceptions import (
    AccessRefused,
    AutosellRmqError,
    BrokerError,
    BrokerUnavailable,
    QueueNotFound,
    TopologyMismatch,
)

# What a broker says when it closes a connection or a channel: "ACCESS_REFUSED - …".
_BROKER_TEXT = re.compile(r"[A-Z]+(?:_[A-Z]+)+ - [^\"]+?(?=['\"],|['\"]\)|['\"]>|$)")

# Everything that a lost connection or a closed channel can look like from inside an await.
LOST = (amqp.AMQPError, amqp.ChannelInvalidStateError, ConnectionError, RuntimeError, EOFError)


def broker_text(error: BaseException) -> str:
    """What the broker itself said, else the error's own words, in one line."""
    said = _BROKER_TEXT.search(str(error)) or _BROKER_TEXT.search(repr(error))
    text = said.group() if said else (str(error) or type(error).__name__)
    return " ".join(text.split())


@contextmanager
def bare_cancellation(error: type[BrokerError]) -> Generator[None]:
    """Turn a `CancelledError` of the client library's own making into `error`.

    aiormq cancels what waits on a channel that closes; nobody cancelled the caller then.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise error("the connection to RabbitMQ was lost") from None


def connecting(error: BaseException, url: BrokerURL) -> AutosellRmqError:
    """Why a connection could not be opened; only `BrokerUnavailable` is worth another attempt."""
    cause = error.__cause__
    if isinstance(error, ssl.SSLError) or isinstance(cause, ssl.SSLError):
        why = cause if isinstance(cause, ssl.SSLError) else error
        return AccessRefused(f"TLS with {url} failed: {broker_text(why)}")
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
        return TopologyMismatch(_mismatch(name, text))
    if isinstance(error, amqp.ChannelNotFoundEntity):
        return QueueNotFound(f"{name!r} does not exist: {text}")
    if isinstance(error, amqp.ChannelAccessRefused | amqp.ChannelLockedResource):
        return AccessRefused(f"RabbitMQ refused {name!r}: {text}")
    if "NOT_IMPLEMENTED" in text or "INTERNAL_ERROR" in text:
        return TopologyMismatch(f"RabbitMQ cannot declare {name!r} like this: {text}")
    return BrokerUnavailable(f"the connection was lost while {name!r} was declared: {text}")


def _mismatch(name: str, text: str) -> str:
    remedy = (
        "take it as it stands with declare=False, or delete it once it is empty and let it be declared anew"
    )
    if "x-queue-type" in text:
        remedy = 'declare it as it is with queue_type="classic" or queue_type="quorum"; or ' + remedy
    if "invalid property" in text or "invalid arg" in text:
        return f"RabbitMQ cannot declare {name!r} with these arguments: {text}"
    return f"{name!r} exists with other arguments: {text}. Either {remedy}"
