"""Parameters that somebody else serves: a framework's dependencies, entered for each run of a handler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

from autosell_rmq.exceptions import ConfigError
from autosell_rmq.idempotency import Abandoned
from autosell_rmq.message import Message
from autosell_rmq.pipeline.handler import Handler
from autosell_rmq.pipeline.signature import Injected
from autosell_rmq.pipeline.threads import NotStarted

logger = logging.getLogger(__name__)

type Injection = Callable[[Message], AbstractAsyncContextManager[Mapping[str, object]]]


class Injector(Protocol):
    """Serves the injected parameters of handlers; see `RabbitMQ.injector`."""

    def plan(
        self, name: str, function: Callable[..., object], parameters: Sequence[Injected]
    ) -> Injection | None:
        """Prepare for a handler, at the start of consuming, before any queue is consumed.

        Args:
            name: how errors call the handler.
            function: the handler, for checks of its other parameters.
            parameters: what is to be injected; may be empty.

        Returns:
            what is entered for each run and gives the values by parameter, inside of the middleware, and for
            an async handler within its timeout. It is left before the result is stored, with the handler's
            error if there is one: what it raises then is a failure of the attempt. None injects nothing.

        Raises:
            ConfigError: a parameter cannot be served; it ends the start.
        """
        ...


def planned(handler: Handler, injector: Injector | None) -> Injection | None:
    """The handler's injection; None where it asks for none.

    Raises:
        ConfigError: it asks for one, and nobody injects.
    """
    injection = injector.plan(handler.name, handler.function, handler.injected) if injector else None
    if injection is None and handler.injected:
        parameter = handler.injected[0]
        raise ConfigError(
            f"handler {handler.name}: nothing serves its parameter {parameter.name!r}, which is a"
            f" {type(parameter.marker).__name__}(…): consume it where a framework does, for FastAPI in an app"
            " with rmq_lifespan(rmq), or give the parameter up"
        )
    return injection


class Injecting:
    """Runs a handler inside of its injection.

    Args:
        injection: entered for each run.
        check: gets the result before the injection is left: what it raises undoes the run.
    """

    def __init__(self, injection: Injection, check: Callable[[object], object]) -> None:
        self._injection = injection
        self._check = check

    async def __call__(
        self,
        message: Message,
        arguments: Mapping[str, object],
        call: Callable[[Mapping[str, object]], Awaitable[object]],
    ) -> object:
        """Await `call` with the arguments and what is injected."""
        async with AsyncExitStack() as stack:
            values = await stack.enter_async_context(_opened(self._injection, message))
            try:
                result = await call({**arguments, **values})
            except Abandoned as error:
                if error.thread is not None:
                    # The thread still works with these values: they are closed when it has returned.
                    _left_later(stack.pop_all(), error, asyncio.wrap_future(error.thread))
                raise
            self._check(result)
            return result
        raise AssertionError  # `_opened` lets no error vanish


@asynccontextmanager
async def _opened(injection: Injection, message: Message) -> AsyncGenerator[Mapping[str, object]]:
    """The injection, which cannot swallow an error: the handler has no result then."""
    errors: list[BaseException] = []
    async with injection(message) as values:
        try:
            yield values
        except BaseException as error:
            errors.append(error)
            raise
    if errors:
        raise _swallowed(errors[0])


def _swallowed(error: BaseException) -> BaseException:
    if not isinstance(error, Exception) or isinstance(error, NotStarted):
        return error  # a cancellation is nobody's to swallow, nor is a drain
    name = type(error).__name__
    told = RuntimeError(f"a dependency with yield swallowed the handler's {name}; it has to raise it again")
    told.__cause__ = error
    return told


_leaving: set[asyncio.Task[None]] = set()


def _left_later(stack: AsyncExitStack, error: Abandoned, thread: asyncio.Future[object]) -> None:
    async def leave() -> None:
        await asyncio.wait([thread])
        try:
            await stack.__aexit__(type(error), error, error.__traceback__)
        except Exception:
            logger.exception("a dependency of an abandoned handler failed when it was closed")

    task = asyncio.get_running_loop().create_task(leave())
    _leaving.add(task)
    task.add_done_callback(_leaving.discard)
