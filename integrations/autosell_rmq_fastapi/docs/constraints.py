"""What a JSON Schema says of a value beside its type, in words."""

from __future__ import annotations

import json

from autosell_rmq_fastapi.docs.markup import Markup, joined, tag
from autosell_rmq_fastapi.docs.reading import Json

_SIMPLE = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "a multiple of {}",
}
_COUNTED = (
    ("minLength", "maxLength", "character"),
    ("minItems", "maxItems", "item"),
    ("minProperties", "maxProperties", "entry"),
)


def constraints(schema: Json) -> list[Markup]:
    """Each limit, the pattern, the allowed values and the default, as a phrase."""
    phrases = [
        joined(words.format(_number(schema[name]))) for name, words in _SIMPLE.items() if name in schema
    ]
    phrases += [
        joined(_count(schema.get(least), schema.get(most), noun))
        for least, most, noun in _COUNTED
        if least in schema or most in schema
    ]
    if schema.get("uniqueItems"):
        phrases.append(joined("no item twice"))
    if "pattern" in schema:
        phrases.append(joined("matches ", tag("code", schema["pattern"])))
    if "enum" in schema:
        phrases.append(joined("one of ", _values(schema["enum"])))
    # Of the branches of a union, those that a value may be under; null has none.
    for branch in schema.get("anyOf", ()):
        phrases += constraints(branch)
    if schema.get("default") not in (None, [], {}):
        phrases.append(joined("by default ", tag("code", as_json(schema["default"]))))
    if schema.get("deprecated"):
        phrases.append(joined("deprecated"))
    return list(dict.fromkeys(phrases))


def as_json(value: object) -> str:
    """A value on one line."""
    return json.dumps(value, ensure_ascii=False)


def _values(values: list[object]) -> Markup:
    pieces: list[str] = []
    for value in values:
        pieces += [tag("code", as_json(value)), ", "]
    return joined(*pieces[:-1])


def _count(least: int | None, most: int | None, noun: str) -> str:
    nouns = "entries" if noun == "entry" else f"{noun}s"
    if least == most:
        return f"{least} {noun if least == 1 else nouns}"
    if most is None:
        return f"at least {least} {noun if least == 1 else nouns}"
    if not least:
        return f"at most {most} {noun if most == 1 else nouns}"
    return f"{least} to {most} {nouns}"


def _number(value: float) -> str:
    return str(int(value) if value == int(value) else value)
