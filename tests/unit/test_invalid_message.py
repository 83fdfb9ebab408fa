"""The errors of an invalid message: listed, bounded, without the values and without what is redacted."""

from collections.abc import Callable
from typing import Annotated, Any

import pydantic

from autosell_rmq.pipeline.invalid_message import InvalidMessage

type Nested = list[Nested] | None


class Order(pydantic.BaseModel):
    id: int
    items: list[str] = []

    @pydantic.field_validator("items")
    @classmethod
    def check(cls, items: list[str]) -> list[str]:
        if items:
            raise ValueError(f"no such item: {items[0]}")
        return items


def errors(
    kind: Any,  # noqa: ANN401 - any type
    body: bytes,
    shown: Callable[[str], str] = lambda text: text,
) -> list[Any]:
    try:
        pydantic.TypeAdapter(kind).validate_json(body)
    except pydantic.ValidationError as error:
        return list(InvalidMessage(error).errors(shown))
    raise AssertionError("it is valid")


def test_each_error_has_its_type_place_and_words_and_nothing_else() -> None:
    assert errors(Order, b'{"id": "zzz", "items": [1]}') == [
        {
            "type": "int_parsing",
            "loc": ["body", "id"],
            "msg": "Input should be a valid integer, unable to parse string as an integer",
        },
        {"type": "string_type", "loc": ["body", "items", 0], "msg": "Input should be a valid string"},
    ]


def test_an_error_of_the_whole_body_is_at_the_body() -> None:
    [error] = errors(Order, b"[]")
    assert error["loc"] == ["body"]


def test_the_list_is_bounded_in_each_direction() -> None:
    key = "k" * 100_000
    strict = Annotated[dict[str, int], "…"]

    assert len(errors(list[int], b"[" + b",".join([b'"x"'] * 5000) + b"]")) == 100
    [error] = errors(strict, f'{{"{key}": "x"}}'.encode())
    assert error["loc"] == ["body", key[:500]]
    [error] = errors(Order, f'{{"id": 1, "items": ["{key}"]}}'.encode())
    assert len(error["msg"]) == 500
    assert max(len(e["loc"]) for e in errors(Nested, b"[" * 60 + b"1" + b"]" * 60)) == 21


def test_what_is_redacted_is_not_in_it_and_its_place_neither() -> None:
    def shown(text: str) -> str:
        return "items: no such item: ***" if "card" in text else text

    assert errors(Order, b'{"id": "x", "items": ["card 4111"]}', shown) == [
        {
            "type": "int_parsing",
            "loc": ["body", "id"],
            "msg": "Input should be a valid integer, unable to parse string as an integer",
        },
        {"type": "value_error", "loc": ["body"], "msg": "items: no such item: ***"},
    ]
