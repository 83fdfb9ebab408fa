"""Types as JSON Schema of draft 07, also those that have none."""

import dataclasses
import datetime as dt
import enum
from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pydantic
import pytest
from jsonschema import Draft7Validator

from autosell_rmq import RabbitMQ, asyncapi_document
from autosell_rmq.asyncapi.draft7 import as_draft7
from autosell_rmq.asyncapi.words import type_name
from tests.support.asyncapi import accepts, problems, references, resolved


class Tree(pydantic.BaseModel):
    name: str
    children: list["Tree"] = []


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


class Plain:
    """Nothing that pydantic knows."""


class Stuffed(pydantic.BaseModel):
    """A model, one of whose fields has no JSON Schema."""

    good: int
    checked: pydantic.InstanceOf[Plain]
    called: Callable[[], int] = pydantic.Field(default=int)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Row(TypedDict):
    number: int
    text: NotRequired[str]


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


def namesake() -> type[pydantic.BaseModel]:
    class Tree(pydantic.BaseModel):
        height: int

    return Tree


def document_of(*payloads: object, result: object = None) -> dict[str, Any]:
    rmq = RabbitMQ("memory://nobody-connects")
    for number, payload in enumerate(payloads):

        def handler(data: object) -> object:
            raise NotImplementedError

        handler.__annotations__ = {"data": payload, "return": result}
        rmq.handler(f"q{number}")(handler)
    return asyncapi_document(rmq, title="t", version="1")


def schema_of(document: dict[str, Any], message: str = "q0.request") -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["messages"][message]["payload"]
    return found


@pytest.mark.parametrize(
    "payload",
    [
        dict,
        Any,
        pydantic.JsonValue,
        float,
        list[int],
        dict[str, Tree],
        Tree,
        Point,
        Row,
        Size,
        Cat | Dog | None,
        Annotated[Cat | Dog, pydantic.Field(discriminator="kind")],
        Annotated[int, pydantic.Field(gt=3, description="Over three.")],
        tuple[int, str],
        tuple[int, ...],
        dt.timedelta,
        bytes,
        pydantic.SecretStr,
        Stuffed,
        list[Stuffed],
        Annotated[object, pydantic.PlainValidator(lambda value: value)],
    ],
    ids=type_name,
)
def test_a_document_with_it_is_valid(payload: object) -> None:
    document = document_of(payload, result=payload)

    assert problems(document) == []
    assert all(resolved(document, reference) is not None for reference in references(document))
    Draft7Validator.check_schema(schema_of(document))
    assert " at 0x" not in str(document)


def test_a_payload_without_annotation_is_a_free_object() -> None:
    rmq = RabbitMQ("memory://nobody-connects")

    @rmq.handler("q0")
    def handler(data):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return data

    document = asyncapi_document(rmq, title="t", version="1")

    assert schema_of(document) == {"type": "object", "additionalProperties": True}
    assert accepts(document, schema_of(document), {"anything": [1]})
    assert schema_of(document, "q0.reply")["properties"]["data"] == {}


def test_two_models_of_one_name_stay_two() -> None:
    document = document_of(Tree, namesake())
    first, second = schema_of(document), schema_of(document, "q1.request")

    assert first != second
    assert accepts(document, first, {"name": "a", "children": [{"name": "b"}]})
    assert not accepts(document, first, {"height": 1})
    assert accepts(document, second, {"height": 1})
    assert not accepts(document, second, {"name": "a"})


def test_a_model_may_be_called_like_a_schema_of_ours() -> None:
    model = pydantic.create_model("DeadLetter", number=(int, ...))
    document = document_of(model)

    assert accepts(document, schema_of(document), {"number": 1})
    assert "autosell_rmq.DeadLetter" in document["components"]["schemas"]


def test_what_is_taken_differs_from_what_is_given() -> None:
    class Priced(pydantic.BaseModel):
        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def amount(self) -> int:
            return 1

    document = document_of(Priced, result=Priced)
    taken = schema_of(document)
    given = schema_of(document, "q0.reply")["properties"]["data"]

    assert accepts(document, taken, {})
    assert not accepts(document, given, {})


def test_a_field_without_schema_leaves_the_others_theirs() -> None:
    document = document_of(Stuffed)
    found = resolved(document, schema_of(document)["$ref"])["properties"]

    assert found["good"]["type"] == "integer"
    assert "no JSON Schema" in found["checked"]["description"]
    assert "no JSON Schema" in str(found["called"])


@pytest.mark.parametrize("result", [Plain, list[Plain]])
def test_a_result_that_pydantic_does_not_know_is_said_in_words(result: object) -> None:
    document = document_of(dict, result=result)

    assert problems(document) == []
    assert "no JSON Schema" in schema_of(document, "q0.reply")["properties"]["data"]["description"]


def test_a_model_that_is_not_complete_is_said_in_words() -> None:
    class Half(pydantic.BaseModel):
        other: "NowhereDefined"  # type: ignore[name-defined]  # noqa: F821

    document = document_of(dict, result=Half)

    assert "no JSON Schema" in schema_of(document, "q0.reply")["properties"]["data"]["description"]


@pytest.mark.parametrize(
    ("later", "draft7"),
    [
        (
            {"prefixItems": [{"type": "integer"}], "items": {"type": "string"}},
            {"items": [{"type": "integer"}], "additionalItems": {"type": "string"}},
        ),
        (
            {"oneOf": [], "discriminator": {"propertyName": "kind", "mapping": {}}},
            {"oneOf": [], "discriminator": "kind"},
        ),
        ({"$ref": "#/a", "description": "b"}, {"allOf": [{"$ref": "#/a"}], "description": "b"}),
        ({"$ref": "#/a"}, {"$ref": "#/a"}),
        (
            {"items": {"anyOf": [{"prefixItems": [True]}]}, "additionalProperties": False},
            {"items": {"anyOf": [{"items": [True]}]}, "additionalProperties": False},
        ),
        # A property may be called like a keyword, and a value may look like a schema.
        (
            {"properties": {"prefixItems": {"$ref": "#/a", "title": "b"}}, "default": {"prefixItems": 1}},
            {
                "properties": {"prefixItems": {"allOf": [{"$ref": "#/a"}], "title": "b"}},
                "default": {"prefixItems": 1},
            },
        ),
    ],
)
def test_later_keywords_become_those_of_draft_7(later: dict[str, Any], draft7: dict[str, Any]) -> None:
    assert as_draft7(later) == draft7


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (Tree, "Tree"),
        (dict[str, Tree], "dict[str, Tree]"),
        (Cat | Dog | None, "Cat | Dog | None"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Annotated[int, lambda: 0], "int"),
        (Literal["a", 1], "Literal['a', 1]"),
        (Any, "Any"),
        (None, "None"),
        (Plain(), "Plain"),
    ],
)
def test_a_type_is_named_as_it_is_written(annotation: object, name: str) -> None:
    assert type_name(annotation) == name
