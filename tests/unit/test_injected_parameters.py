"""Parameters that bear a marker: neither payload nor context, and not refused."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from autosell_rmq import ConfigError, Injected, Message
from autosell_rmq.pipeline import Handler


@dataclass
class Marker:
    dependency: object = None


DB = Marker("db")
type Alias = Annotated[str, DB]


class Elusive:
    """Answers to every name, and must not be asked."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


def injected(function: Callable[..., object]) -> list[Injected]:
    return list(Handler(function).injected)


def test_a_marker_is_found_in_the_annotation_and_in_the_default() -> None:
    def annotated(payload: dict[str, Any], db: Annotated[str, DB]) -> None: ...
    def alias(payload: dict[str, Any], db: Alias) -> None: ...
    def default(payload: dict[str, Any], db: str = DB) -> None: ...  # type: ignore[assignment]
    def keyword(payload: dict[str, Any], *, db: Annotated[str, DB]) -> None: ...
    def first(db: Annotated[str, DB], payload: dict[str, Any]) -> None: ...
    def last(payload: object, db: Annotated[str, Marker("other"), "words", DB] = "x") -> None: ...

    for function in (annotated, alias, default, keyword, first, last):
        assert injected(function) == [Injected(name="db", annotation=str, marker=DB)], function.__name__


def test_a_default_without_annotation_has_none() -> None:
    def handler(payload, db=DB): ...  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202

    assert injected(handler) == [Injected(name="db", annotation=inspect.Parameter.empty, marker=DB)]


def test_what_is_injected_is_not_taken_for_the_payload_nor_for_the_context() -> None:
    def handler(
        user: Annotated[str, Marker(1)],
        payload: int,
        message: Message,
        db: Annotated[str, DB],
        origin: Message = Marker(2),  # type: ignore[assignment] # noqa: B008
    ) -> object:
        return user, origin, payload, message, db

    subject = Handler(handler)
    message = Message(queue="orders", body=b"5")
    served = {**subject.arguments(message), "user": "u", "origin": "o", "db": "d"}

    assert [entry.name for entry in subject.injected] == ["user", "db", "origin"]
    assert subject.call(message, served) == ("u", "o", 5, message, "d")


def test_other_defaults_are_left_alone_and_not_looked_into() -> None:
    def handler(payload: int, other: object = Elusive(), number: int = 3) -> int:
        return number

    assert injected(handler) == []


def test_what_bears_no_marker_is_refused_as_before() -> None:
    def handler(payload: int, db: Annotated[str, "words"]) -> None: ...

    with pytest.raises(ConfigError, match=r"nothing fits the parameter 'db'.*Depends"):
        Handler(handler)


def test_a_handler_still_has_a_payload_or_the_context() -> None:
    def handler(db: Annotated[str, DB]) -> None: ...

    with pytest.raises(ConfigError, match="no parameter for the payload"):
        Handler(handler)


def test_a_positional_parameter_cannot_be_injected() -> None:
    def handler(payload: int, db: Annotated[str, DB], /) -> None: ...

    with pytest.raises(ConfigError, match="'db' cannot be passed by its name"):
        Handler(handler)
