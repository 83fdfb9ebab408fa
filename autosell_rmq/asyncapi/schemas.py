"""Python types as JSON Schema, all in one go, so that two models of one name do not meet."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Literal, cast, override

import pydantic
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema

from autosell_rmq.asyncapi.draft7 import as_draft7
from autosell_rmq.asyncapi.parts import Json

type Mode = Literal["validation", "serialization"]
type Use = tuple[Hashable, Mode, object]  # a name for the use, received or sent, the type

_NOT_DESCRIBED = {"description": "A type of the application's own, which has no JSON Schema."}


def describe(uses: Iterable[Use]) -> tuple[Mapping[Hashable, Json], dict[str, Json]]:
    """The schema of each use by its name, and the models that they refer to.

    A type that has no JSON Schema, or a field of such a type, is described in words.
    """
    inputs: list[tuple[Hashable, Mode, pydantic.TypeAdapter[Any]]] = []
    schemas: dict[Hashable, Json] = {}
    for name, mode, annotation in uses:
        try:
            adapter = pydantic.TypeAdapter(cast("type[Any]", annotation))
            adapter.json_schema(mode=mode, schema_generator=_Generator)
        except (PydanticUserError, PydanticUndefinedAnnotation):
            schemas[name] = dict(_NOT_DESCRIBED)
        else:
            inputs.append((name, mode, adapter))
    found, more = pydantic.TypeAdapter.json_schemas(
        inputs, ref_template="#/components/schemas/{model}", schema_generator=_Generator
    )
    schemas |= {name: as_draft7(schema) for (name, _), schema in found.items()}
    return schemas, {name: as_draft7(schema) for name, schema in more.get("$defs", {}).items()}


class _Generator(GenerateJsonSchema):
    # A default that JSON cannot write is left out; the document is none the worse for it.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's own

    @override
    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Json:
        return dict(_NOT_DESCRIBED)
