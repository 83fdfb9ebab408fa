"""What is wrong with a body that is JSON, but not what the handler asks for: as text, and as a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import pydantic

# A body may be wrong in a million places, under keys of a megabyte.
_MOST_ERRORS = 100
_DEEPEST = 20  # parts of a place
_LONGEST = 500  # characters of a text

type Place = Sequence[str | int]


class Wrong(TypedDict):
    """One error, as FastAPI lists it in a 422; never with the value."""

    type: str
    loc: list[str | int]
    msg: str


class InvalidMessage(Exception):
    """The body is JSON, but not what the handler's annotation asks for."""

    def __init__(self, error: pydantic.ValidationError) -> None:
        self._found = error.errors(include_url=False, include_input=False, include_context=False)
        super().__init__("; ".join(_line(entry["loc"], entry["msg"]) for entry in self._found))

    def errors(self, shown: Callable[[str], str]) -> list[Wrong]:
        """The first 100, their texts cut to 500 characters.

        Args:
            shown: takes out of a text what may not be shown; where it does, the place is left out, too.
        """
        return [
            _wrong(entry["type"], entry["loc"], entry["msg"], shown) for entry in self._found[:_MOST_ERRORS]
        ]


def _wrong(kind: str, place: Place, text: str, shown: Callable[[str], str]) -> Wrong:
    line = _line(place, text)
    if (redacted := shown(line)) != line:
        place, text = (), redacted
    parts = [part[:_LONGEST] if isinstance(part, str) else part for part in place[:_DEEPEST]]
    return {"type": kind, "loc": ["body", *parts], "msg": text[:_LONGEST]}


def _line(place: Place, text: str) -> str:
    return f"{'.'.join(map(str, place)) or '(body)'}: {text}"
