"""The lifespan: RabbitMQ connects and consumes when the app starts, and drains when it stops."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

from fastapi import FastAPI

from autosell_rmq import ConfigError, RabbitMQ
from autosell_rmq_fastapi.injection import injector_for
from autosell_rmq_fastapi.interrupts import on_interrupt
from autosell_rmq_fastapi.producers import producers_in_handlers
from autosell_rmq_fastapi.state import STATE

logger = logging.getLogger("autosell_rmq_fastapi")

type Lifespan[AppT] = Callable[[AppT], AbstractAsyncContextManager[Mapping[str, Any] | None]]
type StatefulLifespan[AppT] = Callable[[AppT], AbstractAsyncContextManager[dict[str, Any]]]


def rmq_lifespan[AppT: FastAPI = FastAPI](
    rmq: RabbitMQ, lifespan: Lifespan[AppT] | None = None, *, consume: bool = True
) -> StatefulLifespan[AppT]:
    """Make a lifespan for ``FastAPI(lifespan=…)`` that runs `rmq` for as long as the app runs.

    At the start it connects and, where there are handlers, consumes; at the end it drains for the settings'
    ``drain_timeout``. When the server leaves at once (it cancels the lifespan, or SIGINT comes during the
    drain), handlers that still run are cut short and their messages go back.

    A start that fails is logged in one line, closes everything, and ends the app's start with the error:
    `BrokerUnavailable` after ``startup_timeout``, `AccessRefused`, `TopologyMismatch`, `ConfigError` (an app
    runs `rmq` already, or the state is not as it should be), `ClosedError` (`rmq` is connected on another
    event loop).

    Args:
        rmq: may be started again once it has ended; one app at a time runs it.
        lifespan: your own, entered first and left last, its state kept; or another `rmq_lifespan`, for
            several objects in one app.
        consume: False only sends, whatever handlers there are.

    Raises:
        ConfigError: `rmq` is something else, or `lifespan` is, such as a bare generator function.
    """
    _check(rmq, lifespan)

    @asynccontextmanager
    async def around(app: AppT) -> AsyncGenerator[dict[str, Any]]:
        theirs = lifespan(app) if lifespan is not None else nullcontext()
        async with theirs as their_state, AsyncExitStack() as stack:
            state = dict(their_state or {})
            try:
                others = _take(rmq, app, state)
                state[STATE] = (*others, rmq)
                stack.callback(_give_back, rmq)
                await rmq.connect()
                stack.push_async_callback(_leave, rmq)
                rmq.injector = injector_for(app, state=state, provided=producers_in_handlers(rmq, *others))
                await _consume(rmq, consume=consume)
            except Exception as error:
                logger.error("RabbitMQ was not started: %s: %s", type(error).__name__, error)  # noqa: TRY400
                raise error from None
            yield state
            await _drain(rmq)

    return around


def _check(rmq: object, lifespan: object) -> None:
    if not isinstance(rmq, RabbitMQ):
        raise ConfigError(
            f"rmq_lifespan: expected a RabbitMQ object, not {type(rmq).__name__}: write"
            " FastAPI(lifespan=rmq_lifespan(rmq)), and your own lifespan after it"
        )
    if isinstance(lifespan, RabbitMQ):
        raise ConfigError(
            "rmq_lifespan takes one RabbitMQ object: nest them, as in"
            " rmq_lifespan(billing, rmq_lifespan(orders))"
        )
    bare = (inspect.isasyncgenfunction, inspect.isgeneratorfunction, inspect.iscoroutinefunction)
    if any(is_bare(lifespan) for is_bare in bare):
        name = getattr(lifespan, "__name__", "the lifespan")
        raise ConfigError(
            f"rmq_lifespan: decorate {name}() with @contextlib.asynccontextmanager; it is async and yields"
        )


async def _consume(rmq: RabbitMQ, *, consume: bool) -> None:
    if consume and rmq.handlers:
        await rmq.start_consuming()
    else:
        logger.info("RabbitMQ: %s", "no handlers, only sending" if consume else "only sending")


async def _drain(rmq: RabbitMQ) -> None:
    """Let handlers finish, until SIGINT."""
    draining = asyncio.create_task(rmq.stop_consuming())
    with on_interrupt(draining.cancel):
        try:
            await draining
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # not by SIGINT: the server cancels the lifespan
                raise


async def _leave(rmq: RabbitMQ) -> None:
    """Close; after a drain, or without one where something went wrong."""
    await rmq.stop_consuming(0)
    await rmq.close()


# --- which app runs which object ----------------------------------------------------------------------

_lock = threading.Lock()  # apps of one process may run on several event loops, in several threads
_running: dict[RabbitMQ, object] = {}


def _take(rmq: RabbitMQ, app: object, state: Mapping[str, Any]) -> tuple[RabbitMQ, ...]:
    """Take `rmq` for `app`; returns the other objects that the app runs already.

    Raises:
        ConfigError: `rmq` is taken, or the app runs others that `state` does not have.
    """
    with _lock:
        if rmq in _running:
            raise ConfigError(
                "rmq_lifespan: this RabbitMQ object runs already, in this app or another one of this process;"
                " make one RabbitMQ object for each"
            )
        others = tuple(one for one, its_app in _running.items() if its_app is app)
        found = state.get(STATE, ())
        if found != others:
            raise ConfigError(_NOT_NESTED if STATE not in state else _KEY_TAKEN)
        _running[rmq] = app
        return others


_KEY_TAKEN = (
    f"rmq_lifespan: your lifespan's state has the key {STATE!r}, which belongs to autosell_rmq_fastapi"
)
_NOT_NESTED = (
    "rmq_lifespan: another rmq_lifespan of this app runs beside this one, not inside it (in a router's"
    " lifespan?): write FastAPI(lifespan=rmq_lifespan(billing, rmq_lifespan(orders)))"
)


def _give_back(rmq: RabbitMQ) -> None:
    rmq.injector = None
    with _lock:
        _running.pop(rmq, None)
