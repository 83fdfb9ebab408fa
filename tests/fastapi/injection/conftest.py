"""A FastAPI app whose handlers are served, on a broker in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Unpack

import pytest
from fastapi import FastAPI

from autosell_rmq import HandlerKwargs, RabbitMQ
from autosell_rmq.testing import memory_server
from autosell_rmq_fastapi.injection import Provided, injector_for
from tests.support.names import unique


class Service:
    """An app, and what it takes to have its handlers called.

    Attributes:
        app: whose ``dependency_overrides`` count.
        log: for what the dependencies of a test have to tell.
    """

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.url = url
        self.app = FastAPI()
        self.log: list[str] = []
        self._stack = stack

    async def consume(
        self,
        function: Callable[..., object],
        *,
        state: Mapping[str, Any] | None = None,
        provided: Provided | None = None,
        **options: Unpack[HandlerKwargs],
    ) -> None:
        """Consume a queue of its own; `reply` sends to it."""
        self.queue = unique("queue")
        self.rmq = await self._stack.enter_async_context(RabbitMQ(self.url))
        self.rmq.injector = injector_for(self.app, state=state, provided=provided)
        options.setdefault("max_retries", 0)
        self.rmq.handler(self.queue, **options)(function)
        await self.rmq.start_consuming()

    async def reply(self, data: object = None) -> Any:  # noqa: ANN401 - JSON
        """The handler's result, or the text of its error."""
        reply = await self.rmq.producer.send_message(self.queue, data)
        return reply["data"] if reply["success"] else reply["error"]

    async def called(
        self,
        function: Callable[..., object],
        data: object = None,
        **options: Any,  # noqa: ANN401 - as `consume`
    ) -> Any:  # noqa: ANN401 - JSON
        """Consume, and the reply to one message."""
        await self.consume(function, **options)
        return await self.reply(data)


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    for name in ("RABBITMQ_URL", "QUEUE_NAME", "DLQ_NAME", "MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(memory_server())
        yield Service(server.url, stack)
