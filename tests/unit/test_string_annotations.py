"""Handlers of a module under ``from __future__ import annotations``: their annotations are strings."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pydantic
import pytest

from autosell_rmq import ConfigError, Message
from autosell_rmq.pipeline import Handler

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal


class Order(pydantic.BaseModel):
    id: int


def order_id(order: Order, message: Message) -> int:
    return order.id


def served(function: Callable[..., object], body: bytes = b'{"id": "1"}') -> object:
    handler = Handler(function)
    message = Message(queue="orders", body=body)
    return handler.call(message, handler.arguments(message))


def test_names_of_the_module_are_found() -> None:
    class Service:
        def method(self, order: Order) -> int:
            return order.id

        def __call__(self, order: Order) -> int:
            return order.id

    @functools.wraps(order_id)
    def wrapped(order: Order, message: Message) -> int:
        return order_id(order, message)

    for function in (order_id, wrapped, Service(), Service().method, functools.partial(order_id)):
        assert served(function) == 1


def test_a_local_model_that_the_handler_uses_is_found() -> None:
    class Local(pydantic.BaseModel):
        id: int

    def handler(order: Local) -> tuple[int, bool]:
        return order.id, isinstance(order, Local)

    assert served(handler) == (1, True)


def test_a_name_that_cannot_be_found_is_told_in_one_line() -> None:
    def handler(price: Decimal) -> object:
        return price

    with pytest.raises(ConfigError, match=r"handler .*handler: an annotation cannot be resolved.*'Decimal'"):
        Handler(handler)
