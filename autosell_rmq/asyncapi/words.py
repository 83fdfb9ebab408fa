"""Names of types and docstrings, as a document has them."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from autosell_rmq.asyncapi.parts import Json


def in_words(text: str) -> Json:
    """The first paragraph as the summary, the others as the description."""
    summary, _, description = text.partition("\n\n")
    words = {"summary": " ".join(summary.split()), "description": description.strip()}
    return {name: value for name, value in words.items() if value}


def type_name(annotation: object) -> str:
    """A type as its annotation is written, without modules: ``dict[str, Money]``.

    Never its repr, in which an address in memory may be: the document is the same from run to run.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(map(type_name, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is not None and arguments:
        return f"{type_name(origin)}[{', '.join(map(type_name, arguments))}]"
    if annotation in (None, NoneType):
        return "None"
    if annotation is ...:
        return "..."
    return getattr(annotation, "__name__", None) or type(annotation).__name__
