"""Dependencies that yield: closed after the handler, in order, whatever comes of it, and before it counts."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated

import pytest
from fastapi import Depends

from autosell_rmq import Message
from tests.fastapi.injection.conftest import Service
from tests.integration.app_fixtures import Gate
from tests.support.waiting import PATIENCE, eventually


def on_loop(log: list[str], name: str) -> Callable[[], object]:
    """A dependency that tells when it is entered and left, and why."""

    async def dependency() -> AsyncIterator[str]:
        log.append(f"+{name}")
        try:
            yield name
        except BaseException as error:
            log.append(f"{name} {type(error).__name__}")
            raise
        finally:
            await asyncio.sleep(0)  # as a roll-back would
            log.append(f"-{name}")

    return dependency


def in_thread(log: list[str], name: str) -> Callable[[], object]:
    """The same as a sync one."""

    def dependency() -> Iterator[str]:
        log.append(f"+{name}")
        try:
            yield name
        except BaseException as error:
            log.append(f"{name} {type(error).__name__}")
            raise
        finally:
            log.append(f"-{name}")

    return dependency


async def test_they_close_the_other_way_round_and_those_of_the_function_first(service: Service) -> None:
    log = service.log
    inner = in_thread(log, "inner")

    def outer(inner: Annotated[str, Depends(inner)]) -> Iterator[str]:
        log.append("+outer")
        yield inner
        log.append("-outer")

    def handler(
        payload: object,
        early: Annotated[str, Depends(on_loop(log, "early"), scope="function")],
        first: Annotated[str, Depends(on_loop(log, "first"))],
        outer: Annotated[str, Depends(outer, scope="request")],
        late: Annotated[str, Depends(in_thread(log, "late"), scope="function")],
    ) -> list[str]:
        log.append("handler")
        return [early, first, outer, late]

    assert await service.called(handler) == ["early", "first", "inner", "late"]
    assert log == [
        *("+early", "+first", "+inner", "+outer", "+late", "handler"),
        *("-late", "-early", "-outer", "-inner", "-first"),
    ]


async def test_the_handlers_error_goes_through_them(service: Service) -> None:
    log = service.log

    async def handler(
        payload: object,
        first: Annotated[str, Depends(on_loop(log, "first"))],
        second: Annotated[str, Depends(in_thread(log, "second"))],
    ) -> None:
        raise LookupError("no such order")

    assert await service.called(handler) == "LookupError: no such order"
    assert log == [
        *("+first", "+second"),
        *("second LookupError", "-second", "first LookupError", "-first"),
    ]


async def test_an_error_of_a_dependency_closes_those_before_it(service: Service) -> None:
    def fails() -> None:
        raise LookupError("no such user")

    async def handler(
        payload: object,
        first: Annotated[str, Depends(in_thread(service.log, "first"))],
        user: Annotated[None, Depends(fails)],
    ) -> None:
        service.log.append("handler")

    assert await service.called(handler) == "LookupError: no such user"
    assert service.log == ["+first", "first LookupError", "-first"]


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_commit_that_fails_is_tried_again_with_the_handler(service: Service, is_async: bool) -> None:
    async def session(message: Message) -> AsyncIterator[list[str]]:
        yield service.log
        if message.attempt == 1:
            raise ConnectionError("the database is gone")
        service.log.append("commit")

    def session_in_thread(message: Message) -> Iterator[list[str]]:
        yield service.log
        if message.attempt == 1:
            raise ConnectionError("the database is gone")
        service.log.append("commit")

    async def handler(
        payload: object, log: Annotated[list[str], Depends(session if is_async else session_in_thread)]
    ) -> None:
        log.append("handler")

    await service.called(handler, max_retries=1, retry_delay=0.01)
    assert service.log == ["handler", "handler", "commit"]


async def test_an_error_may_be_made_another_one_but_not_be_swallowed(service: Service) -> None:
    def translates() -> Iterator[None]:
        try:
            yield
        except LookupError as error:
            raise ValueError("translated") from error

    def swallows() -> Iterator[None]:
        try:
            yield
        except ValueError:
            service.log.append("swallowed")

    async def translated(payload: object, value: Annotated[None, Depends(translates)]) -> None:
        raise LookupError

    async def swallowed(payload: object, value: Annotated[None, Depends(swallows)]) -> None:
        raise ValueError("no")

    assert await service.called(translated) == "ValueError: translated"
    assert "swallowed the handler's ValueError" in await service.called(swallowed)
    assert service.log == ["swallowed"]


async def test_a_handler_that_is_cancelled_closes_them(service: Service) -> None:
    gate = Gate()

    async def handler(
        payload: object,
        first: Annotated[str, Depends(on_loop(service.log, "first"))],
        second: Annotated[str, Depends(in_thread(service.log, "second"))],
    ) -> None:
        await gate()

    await service.consume(handler)
    await service.rmq.producer.send_fire_and_forget(service.queue, None)
    await gate.has(1)
    await service.rmq.stop_consuming(0)

    assert service.log == [
        *("+first", "+second"),
        *("second CancelledError", "-second", "first CancelledError", "-first"),
    ]


class Held:
    """What a sync dependency waits for."""

    def __init__(self) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.go_on.wait(PATIENCE)


class Mine:
    """A dependency that tells which task the handler runs in."""

    task: asyncio.Task[object] | None = None

    async def __call__(self) -> None:
        self.task = asyncio.current_task()


async def test_what_a_thread_opens_after_a_cancellation_is_closed(service: Service) -> None:
    held, mine, log = Held(), Mine(), service.log

    def session() -> Iterator[None]:
        held()
        log.append("open")
        try:
            yield
        finally:
            log.append("close")

    async def handler(
        payload: object,
        mine: Annotated[None, Depends(mine)],
        outer: Annotated[str, Depends(on_loop(log, "outer"))],
        session: Annotated[None, Depends(session)],
    ) -> None:
        log.append("handler")

    await service.consume(handler)
    await service.rmq.producer.send_fire_and_forget(service.queue, None)
    await eventually(held.entered.is_set)
    draining = asyncio.create_task(service.rmq.stop_consuming(0))
    await eventually(lambda: bool(mine.task and mine.task.cancelling()))
    held.go_on.set()
    await draining

    assert log == ["+outer", "open", "close", "outer CancelledError", "-outer"]


async def test_what_a_thread_closes_is_waited_for_by_a_cancellation(service: Service) -> None:
    held, mine, log = Held(), Mine(), service.log

    def session() -> Iterator[None]:
        yield
        held()
        log.append("closed")

    async def handler(
        payload: object,
        mine: Annotated[None, Depends(mine)],
        outer: Annotated[str, Depends(on_loop(log, "outer"))],
        session: Annotated[None, Depends(session)],
    ) -> None: ...

    await service.consume(handler)
    await service.rmq.producer.send_fire_and_forget(service.queue, None)
    await eventually(held.entered.is_set)
    draining = asyncio.create_task(service.rmq.stop_consuming(0))
    await eventually(lambda: bool(mine.task and mine.task.cancelling()))
    held.go_on.set()
    await draining

    assert log == ["+outer", "closed", "outer CancelledError", "-outer"]
