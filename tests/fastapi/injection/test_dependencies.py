"""What a dependency gets in a handler, and who shares its value."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import pydantic
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from autosell_rmq import Message, RabbitMQ
from autosell_rmq_fastapi.injection import injector_for
from tests.fastapi.injection.conftest import Service
from tests.integration.app_fixtures import Gate
from tests.support.waiting import PATIENCE, eventually

# --- classes ----------------------------------------------------------------------------------------


def limit() -> int:
    return 7


class Page:
    def __init__(self, limit: Annotated[int, Depends(limit)], message: Message) -> None:
        self.limit = limit
        self.queue = message.queue


@dataclass
class Pair:
    limit: Annotated[int, Depends(limit)]
    other: str = "default"


class Model(pydantic.BaseModel):
    limit: Annotated[int, Depends(limit)]


async def test_a_class_is_made_with_its_own_dependencies(service: Service) -> None:
    async def handler(
        payload: object,
        page: Annotated[Page, Depends()],
        pair: Annotated[Pair, Depends()],
        model: Annotated[Model, Depends(Model)],
        default: Page = Depends(),  # noqa: B008
    ) -> object:
        return [page.limit, page.queue, pair.limit, pair.other, model.limit, default is page]

    assert await service.called(handler) == [7, service.queue, 7, "default", 7, True]


# --- what a dependency gets -------------------------------------------------------------------------


class Box[T]:
    def __init__(self, message: Message) -> None:
        self.attempt = message.attempt


async def test_an_optional_message_is_the_message_and_a_generic_class_is_made(service: Service) -> None:
    """Both had been left to their defaults, as if nobody had asked."""

    def attempt(message: Message | None = None) -> int:
        return message.attempt if message is not None else 0

    async def handler(
        payload: object,
        attempt: Annotated[int, Depends(attempt)],
        box: Annotated[Box[int], Depends(Box[int])],
        same: Annotated[Box[str], Depends()],
    ) -> object:
        return [attempt, box.attempt, same.attempt]

    assert await service.called(handler) == [1, 1, 1]


async def test_a_dependency_gets_the_message_and_the_handler_its_own(service: Service) -> None:
    def tenant(message: Message) -> object:
        return [message.queue, message.attempt, message.correlation_id]

    async def handler(
        payload: object, message: Message, tenant: Annotated[object, Depends(tenant)]
    ) -> object:
        return tenant == [message.queue, message.attempt, message.correlation_id]

    assert await service.called(handler) is True


async def test_plain_parameters_have_their_defaults(service: Service) -> None:
    def page(
        limit: int = 100,
        offset: Annotated[int, pydantic.Field(ge=0)] = 0,
        *rest: object,
        tags: tuple[str, ...] = (),
        **more: object,
    ) -> object:
        return [limit, offset, rest, tags, more]

    async def handler(payload: object, page: Annotated[object, Depends(page)]) -> object:
        return page

    assert await service.called(handler) == [100, 0, [], [], {}]


type Limit = Annotated[int, Depends(limit)]


async def test_an_alias_is_looked_through(service: Service) -> None:
    def twice(limit: Limit) -> int:
        return 2 * limit

    async def handler(payload: object, limit: Limit, double: Annotated[int, Depends(twice)]) -> object:
        return [limit, double]

    assert await service.called(handler) == [7, 14]


async def test_the_payload_may_come_after_what_is_injected(service: Service) -> None:
    async def handler(limit: Limit, payload: dict[str, int]) -> object:
        return [limit, payload]

    assert await service.called(handler, {"a": 1}) == [7, {"a": 1}]


# --- sharing ----------------------------------------------------------------------------------------


class Counter:
    """A dependency that answers how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.calls


async def test_one_message_shares_a_value_as_one_request_does(service: Service) -> None:
    counter = Counter()

    def sub(count: Annotated[int, Depends(counter)]) -> int:
        return count

    def endpoint(
        first: Annotated[int, Depends(counter)],
        inner: Annotated[int, Depends(sub)],
        fresh: Annotated[int, Depends(counter, use_cache=False)],
        again: Annotated[int, Depends(counter)],
        of_function: Annotated[int, Depends(counter, scope="function")],
    ) -> list[int]:
        return [first, inner, fresh, again, of_function]

    def handler(payload: object, values: Annotated[list[int], Depends(endpoint)]) -> list[int]:
        return values

    assert await service.called(handler) == [1, 1, 2, 1, 3]
    assert await service.reply() == [4, 4, 5, 4, 6]

    app, counter.calls = FastAPI(), 0
    app.get("/")(endpoint)
    assert TestClient(app).get("/").json() == [1, 1, 2, 1, 3]


async def test_one_depends_has_one_limit_wherever_it_stands(service: Service) -> None:
    gate = Gate()
    limited = Depends(gate, max_concurrency=1)

    def inner(value: Annotated[object, limited]) -> None: ...

    async def first(payload: object, value: Annotated[object, limited]) -> None: ...
    async def second(payload: object, value: Annotated[object, Depends(inner)]) -> None: ...

    async with RabbitMQ(service.url) as rmq:
        rmq.injector = injector_for(service.app)
        rmq.handler("first")(first)
        rmq.handler("second")(second)
        await rmq.start_consuming()
        for queue in ("first", "second"):
            await rmq.producer.send_fire_and_forget(queue, None)

        async def both_are_here() -> bool:
            return await rmq.backlog() == 2

        await gate.has(1)
        await eventually(both_are_here)
        assert gate.entered == 1
        gate.open()
        await gate.has(2)


@pytest.mark.parametrize("kind", ["coroutine", "thread", "generator"])
async def test_no_more_run_at_once_than_max_concurrency(service: Service, kind: str) -> None:
    go_on, running, most = threading.Event(), 0, 0
    lock = threading.Lock()

    def count(by: int) -> None:
        nonlocal running, most
        with lock:
            running += by
            most = max(most, running)

    async def coroutine() -> None:
        count(1)
        await eventually(go_on.is_set)
        count(-1)

    def thread() -> None:
        count(1)
        assert go_on.wait(PATIENCE)
        count(-1)

    def generator() -> Iterator[None]:
        count(1)
        yield
        count(-1)

    dependency: Callable[[], object] = {"coroutine": coroutine, "thread": thread, "generator": generator}[
        kind
    ]
    limited = Depends(dependency, max_concurrency=2)
    waiting = 0

    async def handler(payload: object, value: Annotated[object, limited]) -> None:
        nonlocal waiting
        waiting += 1
        await eventually(go_on.is_set)

    await service.consume(handler)
    replies = [asyncio.create_task(service.reply()) for _ in range(5)]

    async def all_are_here() -> bool:
        return running == 2 and await service.rmq.backlog() == 5

    await eventually(all_are_here)
    go_on.set()

    assert await asyncio.gather(*replies) == [None] * 5
    assert most == 2
    assert waiting == 5
