"""A JSON Schema as a table of fields, in which models are links."""

from __future__ import annotations

from collections.abc import Iterable

from autosell_rmq_fastapi.docs.constraints import as_json, constraints
from autosell_rmq_fastapi.docs.markup import Markup, joined, tag, with_code
from autosell_rmq_fastapi.docs.reading import SCHEMAS, Document, Json


def anchor(kind: str, name: str) -> str:
    """The id of a section of the page."""
    return f"{kind}-{name}"


def type_of(schema: Json | bool) -> Markup:
    """The type in a few words."""
    if not isinstance(schema, dict):
        return joined("any" if schema else "nothing")
    if "$ref" in schema:
        return _link(schema["$ref"])
    if len(schema.get("allOf", ())) == 1:
        return type_of(schema["allOf"][0])
    for name, word in (("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")):
        if name in schema:
            return _list(map(type_of, schema[name]), word)
    if "const" in schema:
        return tag("code", as_json(schema["const"]))
    return _plain(schema)


def table(document: Document, schema: Json) -> Markup:
    """The fields of an object; of anything else, what its schema says beside the type."""
    found = document.resolve(schema)
    properties: dict[str, Json] = found.get("properties", {})
    if not properties:
        return tag("div", _notes(schema), class_="no-fields") if "$ref" not in schema else joined()
    required = found.get("required", ())
    rows = [_row(name, field, required=name in required) for name, field in properties.items()]
    return tag("table", tag("tbody", *rows), class_="fields")


def _row(name: str, field: Json | bool, *, required: bool) -> Markup:
    mark = tag("span", "required", class_="required") if required else joined()
    title = tag("th", tag("code", name), mark, scope="row")
    return tag("tr", title, tag("td", tag("div", type_of(field), class_="type"), _notes(field)))


def _notes(field: Json | bool) -> Markup:
    if not isinstance(field, dict):
        return joined()
    notes: list[Markup] = []
    if "description" in field:
        notes.append(tag("p", with_code(field["description"])))
    if limits := constraints(field):
        notes.append(tag("p", _list(limits, " · "), class_="limits"))
    return joined(*notes)


def _plain(schema: Json) -> Markup:
    kind = schema.get("type")
    if isinstance(kind, list):
        return joined(" or ".join(kind))
    if kind == "array":
        return _array(schema)
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return joined("object of ", type_of(schema["additionalProperties"]))
    if kind is None:
        return joined("any")
    return joined(kind, f" · {schema['format']}" if "format" in schema else "")


def _array(schema: Json) -> Markup:
    items = schema.get("items")
    if isinstance(items, list):
        return joined("[", _list(map(type_of, items), ", "), "]")
    return joined("array of ", type_of(items)) if items else joined("array")


def _link(reference: str) -> Markup:
    name = reference.removeprefix(SCHEMAS)
    return tag("a", shown(name), href=f"#{anchor('schema', name)}")


def shown(name: str) -> str:
    """A schema's name as people read it: ours without their prefix."""
    return name.removeprefix("autosell_rmq.")


def _list(parts: Iterable[Markup], between: str) -> Markup:
    written: list[str] = []
    for part in parts:
        written += [part, between]
    return joined(*written[:-1])
