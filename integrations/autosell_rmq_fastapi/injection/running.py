"""One message's dependencies: made in order, shared, and closed the other way round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any

from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool

from autosell_rmq import Message
from autosell_rmq_fastapi.injection.planning import Use


@asynccontextmanager
async def values_for(uses: Sequence[Use], message: Message) -> AsyncGenerator[Mapping[str, object]]:
    """The values by name; those that yield are closed at the exit, which sees the handler's error."""
    async with AsyncExitStack() as of_request, AsyncExitStack() as of_function:
        run = _Run(message, of_request, of_function)
        yield {use.name: await run.value(use) for use in uses}


class _Run:
    """The values of one message so far."""

    def __init__(self, message: Message, of_request: AsyncExitStack, of_function: AsyncExitStack) -> None:
        self._message = message
        self._of_request = of_request
        self._of_function = of_function
        self._values: dict[object, object] = {}

    async def value(self, use: Use) -> object:
        """Made, or made before: one after the other, as FastAPI does."""
        if use.use_cache and use.key in self._values:
            return self._values[use.key]
        arguments: dict[str, object] = dict.fromkeys(use.dependency.context, self._message)
        for inner in use.dependency.uses:
            arguments[inner.name] = await self.value(inner)
        value = await self._made(use, arguments)
        self._values.setdefault(use.key, value)
        return value

    async def _made(self, use: Use, arguments: dict[str, object]) -> object:
        kind, call = use.dependency.kind, use.dependency.call
        if kind is None:
            return call()
        if kind in ("generator", "async generator"):
            return await self._opened(use, partial(call, **arguments))
        make = partial(call, **arguments) if kind == "async" else partial(_in_thread, call, arguments)
        if use.limit is None:
            return await make()
        async with use.limit:
            return await make()

    async def _opened(self, use: Use, call: Callable[[], Any]) -> object:
        stack = self._of_function if use.of_function else self._of_request
        if use.limit is not None:
            await stack.enter_async_context(use.limit)
        if use.dependency.kind == "async generator":
            return await stack.enter_async_context(asynccontextmanager(call)())
        in_threads = contextmanager_in_threadpool(contextmanager(call)())
        return await _outlasting(stack.enter_async_context(_PatientExit(in_threads)))


class _PatientExit(AbstractAsyncContextManager[object, bool | None]):
    def __init__(self, manager: AbstractAsyncContextManager[object]) -> None:
        self._manager = manager

    async def __aenter__(self) -> object:
        return await self._manager.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await _outlasting(self._manager.__aexit__(kind, error, trace))


async def _in_thread(call: Callable[..., object], arguments: Mapping[str, object]) -> object:
    return await _outlasting(run_in_threadpool(call, **arguments))


async def _outlasting[T](work: Coroutine[Any, Any, T]) -> T:
    """Await what a thread does: a cancellation, such as the timeout's, waits for it and goes on.

    Nothing stops a thread: to go on at once would close what it is about to open, or never close it. A
    second cancellation does not wait.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
