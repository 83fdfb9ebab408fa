"""What may stand in a Depends, in a handler as in a route: each runs where FastAPI runs it."""

import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends

from tests.fastapi.injection.conftest import Service


def main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


# --- kinds of dependencies: each answers whether it ran on the event loop -----------------------------


async def coroutine_function() -> bool:
    return main_thread()


def function() -> bool:
    return main_thread()


async def async_generator() -> AsyncIterator[bool]:
    yield main_thread()


def generator() -> Iterator[bool]:
    yield main_thread()


class Instance:
    def __call__(self) -> bool:
        return main_thread()

    def method(self) -> bool:
        return main_thread()

    async def async_method(self) -> bool:
        return main_thread()


class AsyncInstance:
    async def __call__(self) -> bool:
        return main_thread()


class AsyncGeneratorInstance:
    async def __call__(self) -> AsyncIterator[bool]:
        yield main_thread()


class GeneratorInstance:
    def __call__(self) -> Iterator[bool]:
        yield main_thread()


def of(ignored: str, value: Callable[[], bool]) -> bool:
    return value()


@functools.wraps(coroutine_function)
def wrapper() -> Any:  # noqa: ANN401 - what it wraps
    return coroutine_function()


@functools.wraps(AsyncInstance())
def wrapper_of_instance() -> Any:  # noqa: ANN401 - what it wraps
    return coroutine_function()


@functools.wraps(function)
async def async_wrapper() -> bool:
    return function()


class WrappedCall:
    async def method(self) -> bool:
        return main_thread()

    @functools.wraps(method)
    def __call__(self) -> Any:  # noqa: ANN401 - what it wraps
        return self.method()


class PartialCall:
    async def method(self, value: Callable[[], bool]) -> bool:
        return value()

    __call__ = functools.partialmethod(method, value=main_thread)


class Inert:
    """Made in a thread, not called."""

    def __init__(self) -> None:
        self.on_loop = main_thread()

    async def __call__(self) -> None:
        raise AssertionError

    def __bool__(self) -> bool:
        return self.on_loop


KINDS: list[Any] = [
    (coroutine_function, True),
    (function, False),
    (async_generator, True),
    (generator, False),
    (Instance(), False),
    (Instance().method, False),
    (Instance().async_method, True),
    (AsyncInstance(), True),
    (AsyncGeneratorInstance(), True),
    (GeneratorInstance(), False),
    (functools.partial(of, "x", value=main_thread), False),
    (functools.partial(coroutine_function), True),
    (functools.partial(async_generator), True),
    (functools.partial(AsyncInstance()), True),
    pytest.param(wrapper, True, id="wrapper"),
    pytest.param(wrapper_of_instance, True, id="wrapper of an instance"),
    pytest.param(async_wrapper, True, id="async wrapper"),
    (WrappedCall(), True),
    (PartialCall(), True),
    (Inert, False),
]


@pytest.mark.parametrize(("dependency", "on_loop"), KINDS)
async def test_each_kind_of_dependency_runs_where_a_route_runs_it(
    service: Service, dependency: Callable[..., Any], on_loop: bool
) -> None:
    async def handler(payload: object, value: Annotated[object, Depends(dependency)]) -> object:
        return bool(value)

    def in_thread(payload: object, value: object = Depends(dependency)) -> object:
        return [bool(value), main_thread()]

    assert await service.called(handler) is on_loop
    assert await service.called(in_thread) == [on_loop, False]
