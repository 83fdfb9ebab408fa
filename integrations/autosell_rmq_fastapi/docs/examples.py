"""A value that a JSON Schema allows, to be looked at; none where it cannot be derived."""

from __future__ import annotations

import math
import re
from typing import Any

from autosell_rmq_fastapi.docs.reading import Document, Json

type Inside = frozenset[str]  # the models that are being written; one that contains itself ends there

_BY_FORMAT = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "duration": "PT15M",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "5f2c1d0a-8f0e-4c55-9c53-0b6f5f4b7a11",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}
# Tried against a pattern, and in turn where only the length is given.
_TEXTS = ("string", "abc", "ab", "a", "ABC", "AB", "12.50", "1", "12", "123", "1234", "12345", "123456")


class NoExample(Exception):
    """Nothing that fits can be derived."""


def example(document: Document, schema: Json) -> Any:  # noqa: ANN401 - any JSON
    """A value of the schema.

    Raises:
        NoExample: a pattern or a combination is beyond this function.
    """
    return _of(document, schema, frozenset())


def _of(document: Document, given: Json | bool, inside: Inside) -> Any:  # noqa: ANN401
    if not isinstance(given, dict):
        return {}
    if (reference := given.get("$ref")) is not None:
        if reference in inside:
            raise NoExample
        inside |= {reference}
    schema = document.resolve(given)
    for value in _said(schema):
        return value
    branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    return _first(document, schema, branches, inside) if branches else _by_type(document, schema, inside)


def _said(schema: Json) -> list[Any]:
    """What the schema itself gives as a value, if it does."""
    for name in ("examples", "enum"):
        if schema.get(name):
            return list(schema[name])[:1]
    if "const" in schema:
        return [schema["const"]]
    return [schema["default"]] if schema.get("default") is not None else []


def _first(document: Document, schema: Json, branches: list[Json], inside: Inside) -> Any:  # noqa: ANN401
    if len(schema.get("allOf", ())) > 1:
        raise NoExample
    for branch in branches:
        try:
            return _of(document, branch, inside)
        except NoExample:
            continue
    raise NoExample


def _by_type(document: Document, schema: Json, inside: Inside) -> Any:  # noqa: ANN401
    kind = schema.get("type", "object" if "properties" in schema else None)
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return _object(document, schema, inside)
        case "array":
            return _array(document, schema, inside)
        case "string":
            return _string(schema)
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return {}


def _object(document: Document, schema: Json, inside: Inside) -> Json:
    found: Json = {}
    for name, field in schema.get("properties", {}).items():
        try:
            found[name] = _of(document, field, inside)
        except NoExample:
            if name in schema.get("required", ()):
                raise
    values = schema.get("additionalProperties")
    if not found and isinstance(values, dict):
        found["key"] = _of(document, values, inside)
    return found


def _array(document: Document, schema: Json, inside: Inside) -> list[Any]:
    items = schema.get("items", {})
    if isinstance(items, list):
        return [_of(document, item, inside) for item in items]
    least = schema.get("minItems", 0)
    try:
        item = _of(document, items, inside)
    except NoExample:
        if least:
            raise
        return []
    if least > 1 and schema.get("uniqueItems"):
        raise NoExample
    return [item] * max(least, 1 if schema.get("maxItems", 1) else 0)


def _string(schema: Json) -> str:
    if schema.get("format") in _BY_FORMAT:
        return _BY_FORMAT[schema["format"]]
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    for text in (*_TEXTS, "x" * min(least, 200)):
        if least <= len(text) and (most is None or len(text) <= most) and _matches(text, schema):
            return text
    raise NoExample


def _matches(text: str, schema: Json) -> bool:
    try:
        return re.search(schema.get("pattern", ""), text) is not None
    except re.error:  # of another dialect than Python's
        return False


def _number(schema: Json) -> float:
    least = _bound(schema, "minimum", "exclusiveMinimum", otherwise=0)
    most = _bound(schema, "maximum", "exclusiveMaximum", otherwise=least + 2)
    step: float = schema.get("multipleOf", 1)
    middle = (least + most) / 2
    for number in (step, least, most, step * math.ceil(least / step), least + step, most - step, middle):
        if _fits(number, schema):
            return int(number) if number == int(number) else number
    raise NoExample


def _bound(schema: Json, *names: str, otherwise: float) -> float:
    return next((schema[name] for name in names if name in schema), otherwise)


def _fits(number: float, schema: Json) -> bool:
    return bool(
        schema.get("minimum", number) <= number <= schema.get("maximum", number)
        and number > schema.get("exclusiveMinimum", number - 1)
        and number < schema.get("exclusiveMaximum", number + 1)
        and (number == int(number) or schema["type"] == "number")
        and number % schema.get("multipleOf", number or 1) == 0
    )
