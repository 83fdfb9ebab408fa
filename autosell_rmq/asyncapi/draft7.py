"""From the JSON Schema that pydantic writes (2020-12) to the one that AsyncAPI takes (draft 07)."""

from __future__ import annotations

from typing import Any

_MAPS = ("properties", "patternProperties", "$defs")
_LISTS = ("anyOf", "oneOf", "allOf")
_SINGLE = ("items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else")


def as_draft7(schema: Any) -> Any:  # noqa: ANN401 - a schema is a dict or a bool
    """The same schema without what only the later draft has."""
    if not isinstance(schema, dict):
        return schema
    found = dict(schema)
    _renamed(found)
    for name in _MAPS:
        if isinstance(found.get(name), dict):
            found[name] = {key: as_draft7(value) for key, value in found[name].items()}
    for name in (*_LISTS, *_SINGLE):
        value = found.get(name)
        if isinstance(value, list):
            found[name] = [as_draft7(item) for item in value]
        elif value is not None:
            found[name] = as_draft7(value)
    return _reference_alone(found)


def _renamed(found: dict[str, Any]) -> None:
    if "prefixItems" in found:
        rest = found.pop("items", None)
        found["items"] = found.pop("prefixItems")
        if rest is not None:
            found["additionalItems"] = as_draft7(rest)
    if isinstance(found.get("discriminator"), dict):  # OpenAPI's object; AsyncAPI names the property only
        found["discriminator"] = found["discriminator"]["propertyName"]


def _reference_alone(found: dict[str, Any]) -> dict[str, Any]:
    # In draft 07 whatever stands beside a $ref is ignored.
    if "$ref" not in found or len(found) == 1:
        return found
    reference = found.pop("$ref")
    return {"allOf": [{"$ref": reference}, *found.pop("allOf", [])], **found}
