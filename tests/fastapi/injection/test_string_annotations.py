"""Dependencies of a module under ``from __future__ import annotations``."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import pytest
from fastapi import Depends, Request

from autosell_rmq import ConfigError, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from decimal import Decimal

    from tests.fastapi.injection.conftest import Service


def limit() -> int:
    return 7


def queue(message: Message) -> str:
    return message.queue


def session(limit: Annotated[int, Depends(limit)]) -> Iterator[int]:  # a name for type checkers only
    yield limit


@dataclass
class Page:
    limit: Annotated[int, Depends(limit)]


class Instance:
    def __call__(self, limit: Annotated[int, Depends(limit)]) -> Decimal | int:
        return limit


class Base:
    def __init__(self, limit: Annotated[int, Depends(limit)], note: Decimal | None = None) -> None:
        self.limit = limit


async def test_names_of_the_module_are_found(service: Service) -> None:
    async def handler(
        payload: object,
        queue: Annotated[str, Depends(queue)],
        session: Annotated[int, Depends(session)],
        page: Annotated[Page, Depends()],
        instance: Annotated[int, Depends(Instance())],
        partial: Annotated[int, Depends(functools.partial(Instance()))],
        method: Annotated[int, Depends(Instance().__call__)],
    ) -> object:
        return [queue, session, page.limit, instance, partial, method]

    assert await service.called(handler) == [service.queue, 7, 7, 7, 7, 7]


async def test_a_local_name_that_the_dependency_uses_is_found(service: Service) -> None:
    def local() -> int:
        return 3

    def dependency(value: Annotated[int, Depends(local)]) -> list[object]:
        return [value, local is not None]

    async def handler(payload: object, value: Annotated[object, Depends(dependency)]) -> object:
        return value, dependency is not None

    assert await service.called(handler) == [[3, True], True]


def unknown(value: Decimal = 3) -> object:  # type: ignore[assignment]
    return value


def request(request: Request) -> Decimal:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("dependency", "told"),
    [
        (unknown, r"unknown\): an annotation cannot be resolved: name 'Decimal' is not defined"),
        (Base, r"Base\): an annotation cannot be resolved: name 'Decimal' is not defined"),
        (request, r"request\): its parameter 'request' wants the Request"),
    ],
)
async def test_what_cannot_be_served_is_told(
    service: Service, dependency: Callable[..., object], told: str
) -> None:
    async def handler(payload: object, value: Annotated[object, Depends(dependency)]) -> object:
        return value, dependency

    with pytest.raises(ConfigError, match=told):
        await service.consume(handler)
