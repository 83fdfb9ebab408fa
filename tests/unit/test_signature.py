"""What a handler's signature may ask for, and what is refused at the decorator, by name."""

import dataclasses
import datetime as dt
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, NotRequired, TypedDict

import pydantic
import pytest

from autosell_rmq import ConfigError, Message
from autosell_rmq.exceptions import DecodeError
from autosell_rmq.pipeline import Handler
from autosell_rmq.pipeline.invalid_message import InvalidMessage


class Order(pydantic.BaseModel):
    id: int
    items: list[str] = []


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Address(TypedDict):
    city: str
    zip: NotRequired[str]


def served(function: Callable[..., object], body: bytes) -> object:
    """What a sync function returns when a message with this body comes."""
    handler = Handler(function)
    message = Message(queue="orders", body=body)
    return handler.call(message, handler.arguments(message))


@pytest.mark.parametrize(
    ("annotation", "body", "expected"),
    [
        (Order, b'{"id": "7"}', Order(id=7)),
        (Point, b'{"x": 1}', Point(1, 0)),
        (Address, b'{"city": "Almaty"}', {"city": "Almaty"}),
        (list[int], b"[1, 2]", [1, 2]),
        (list[Order], b'[{"id": 1}]', [Order(id=1)]),
        (dict[str, int], b'{"a": 1}', {"a": 1}),
        (str, b'"text"', "text"),
        (int, b"5", 5),
        (int | None, b"null", None),
        (bool, b"true", True),
        (dt.date, b'"2024-02-29"', dt.date(2024, 2, 29)),
        (Annotated[int, pydantic.Field(gt=3)], b"4", 4),
        (Any, b'{"a": [1]}', {"a": [1]}),
        (object, b"[]", []),
        (dict, b'{"a": 1}', {"a": 1}),
    ],
)
def test_the_payload_comes_as_annotated(annotation: object, body: bytes, expected: object) -> None:
    def handler(payload: object) -> object:
        return payload

    handler.__annotations__["payload"] = annotation
    assert served(handler, body) == expected


@pytest.mark.parametrize("body", [b"[1, 2]", b'"text"', b"null", b"1.5"])
def test_a_dict_handler_gets_whatever_json_it_is(body: bytes) -> None:
    def plain(payload: dict) -> object:  # type: ignore[type-arg]
        return payload

    def bare(payload):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return payload

    assert served(plain, body) == served(bare, body) == pydantic.TypeAdapter(Any).validate_json(body)


def test_the_context_may_stand_anywhere_and_be_alone() -> None:
    def last(order: Order, message: Message) -> object:
        return order.id, message.queue

    def first(message: Message, order: Order) -> object:
        return order.id, message.queue

    def keyword(order: Order, *, context: Message) -> object:
        return order.id, context.queue

    def alone(message: Message) -> object:
        return message.queue

    def optional(order: Order, message: Message | None = None) -> object:
        return order.id, message and message.queue

    assert {served(f, b'{"id": 1}') for f in (last, first, keyword, optional)} == {(1, "orders")}
    assert served(alone, b'{"whatever": 1}') == "orders"
    with pytest.raises(DecodeError):
        served(alone, b"no json")


def test_parameters_with_defaults_keep_them() -> None:
    def handler(order: Order, retries: int = 5, *args: int, key: str = "k", **rest: str) -> object:
        return order.id, retries, args, key, rest

    assert served(handler, b'{"id": 1}') == (1, 5, (), "k", {})


def test_the_payload_may_be_positional_only() -> None:
    def handler(order: Order, /, message: Message) -> object:
        return order.id, message.queue

    assert served(handler, b'{"id": 1}') == (1, "orders")


def test_methods_callable_objects_lambdas_and_partials_serve() -> None:
    class Service:
        def method(self, order: Order) -> object:
            return order.id

        def __call__(self, order: Order, message: Message) -> object:
            return order.id

        @classmethod
        def of_class(cls, order: Order) -> object:
            return order.id

        @staticmethod
        def static(order: Order) -> object:
            return order.id

    def with_dependency(db: str, order: Order, unit: str) -> object:
        return order.id

    service = Service()
    for function in (
        service.method,
        service,
        Service.of_class,
        Service.static,
        functools.partial(with_dependency, "db", unit="kg"),
        functools.partial(functools.partial(with_dependency, "db"), unit="kg"),
        functools.partial(service.method),
        functools.partial(service),
    ):
        assert served(function, b'{"id": 1}') == 1
    assert served(lambda payload: payload["id"], b'{"id": 1}') == 1


def test_a_decorated_function_keeps_its_signature() -> None:
    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: object, **kwargs: object) -> object:
            return "around", function(*args, **kwargs)

        return wrapper

    @decorated
    @decorated
    def handler(order: Order, message: Message) -> object:
        return order.id, message.queue

    assert served(handler, b'{"id": 1}') == ("around", ("around", (1, "orders")))


@pytest.mark.parametrize("is_async", [True, False])
def test_what_is_async_is_known_through_partials_methods_and_objects(is_async: bool) -> None:
    class Sync:
        def method(self, payload: object) -> None: ...

        def __call__(self, payload: object) -> None: ...

    class Async:
        async def method(self, payload: object) -> None: ...

        async def __call__(self, payload: object) -> None: ...

    service: Any = Async() if is_async else Sync()
    for function in (service, service.method, functools.partial(service), functools.partial(service.method)):
        assert Handler(function).is_async is is_async


def test_a_parameter_that_nothing_fits_is_named() -> None:
    def extra(order: Order, database: str) -> None: ...

    def keyword(order: Order, *, database: str) -> None: ...

    def only_keyword(*, database: str) -> None: ...

    for function in (extra, keyword, only_keyword):
        with pytest.raises(ConfigError, match=rf"{function.__name__}.*'database'"):
            Handler(function)


def test_other_signatures_that_cannot_be_served_are_refused_by_name() -> None:
    def nothing() -> None: ...

    def twice(one: Message, other: Message) -> None: ...

    def positional(message: Message, /) -> None: ...

    def generator(payload: object) -> Iterator[int]:
        yield 1

    async def async_generator(payload: object) -> AsyncIterator[int]:
        yield 1

    class Generating:
        def __call__(self, payload: object) -> Iterator[int]:
            yield 1

    for function in (nothing, twice, positional, generator, async_generator, Generating()):
        name = getattr(function, "__name__", "Generating")
        with pytest.raises(ConfigError, match=name):
            Handler(function)


@pytest.mark.parametrize("thing", [None, "handle", 3, {}])
def test_what_cannot_be_called_is_no_handler(thing: Callable[..., object]) -> None:
    with pytest.raises(ConfigError, match="not"):
        Handler(thing)


def test_a_type_that_pydantic_does_not_know_is_refused_by_name() -> None:
    class Foreign: ...

    def handler(payload: Foreign) -> None: ...

    with pytest.raises(ConfigError, match=r"handler.*Foreign"):
        Handler(handler)


def test_an_invalid_payload_lists_each_error_with_its_place() -> None:
    def handler(order: Order) -> None: ...

    with pytest.raises(InvalidMessage) as raised:
        served(handler, b'{"id": "zzz", "items": [1]}')
    text = str(raised.value)
    assert "id: " in text
    assert "items.0: " in text
    assert "zzz" not in text  # the values themselves are somebody's data

    with pytest.raises(InvalidMessage, match=r"\(body\)"):
        served(handler, b"[]")


def test_a_body_that_is_no_json_is_told_apart_from_one_of_another_shape() -> None:
    def handler(order: Order) -> None: ...

    for body in (b"", b"{", b'{"id": NaN}', b'{"id": 1e999}', b"\xff"):
        with pytest.raises(DecodeError):
            served(handler, body)
