"""What every AsyncAPI document has to be: valid, and whole in its references."""

import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft7Validator

from tests.support.services import data


def problems(document: dict[str, Any]) -> list[str]:
    """What AsyncAPI's own schema has against a document."""
    schema = json.loads(data("asyncapi-schema").read_text(encoding="utf-8"))
    return [f"{error.json_path}: {error.message}" for error in Draft7Validator(schema).iter_errors(document)]


def references(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """Every ``$ref`` in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def resolved(document: dict[str, Any], reference: str) -> Any:  # noqa: ANN401
    """What a reference leads to, through further ones."""
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return resolved(document, found["$ref"]) if isinstance(found, dict) and "$ref" in found else found


def accepts(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:  # noqa: ANN401
    """Whether a value is of a schema of the document."""
    whole = {**schema, "components": document["components"]}
    if "$ref" in schema:  # in draft 07, what stands beside a $ref is ignored
        whole = {"allOf": [schema], "components": document["components"]}
    return Draft7Validator(whole).is_valid(value)
