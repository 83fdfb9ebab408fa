"""The Idempotency-Key header: what it may look like, whose it is, and what it becomes."""

import uuid
from collections.abc import Callable
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient

from autosell_rmq import ConfigError
from autosell_rmq_fastapi import IdempotencyKey, idempotency_key

UUID = "8e03978e-40d5-43dd-bc93-6894a57f9324"


def app_with(scope: Callable[..., object] | None = None, *, required: bool = True) -> FastAPI:
    app = FastAPI()

    @app.post("/")
    async def route(
        key: Annotated[IdempotencyKey, Depends(idempotency_key(scope, required=required))],
    ) -> dict[str, str]:
        return {"id": key.id, "correlation_id": key.correlation_id}

    return app


def post(app: FastAPI, *values: str | bytes) -> httpx2.Response:
    # A list, for several headers of one name.
    headers: Any = [(b"Idempotency-Key", v if isinstance(v, bytes) else v.encode()) for v in values]
    with TestClient(app) as client:
        return client.post("/", headers=headers)


def key(app: FastAPI, *values: str | bytes) -> dict[str, str]:
    response = post(app, *values)
    assert response.status_code == 200, response.text
    found: dict[str, str] = response.json()
    return found


@pytest.mark.parametrize("value", [UUID, f'"{UUID}"'], ids=["bare", "quoted"])
def test_a_key_is_itself_in_quotes_or_bare(value: str) -> None:
    assert key(app_with(), value) == {"id": UUID, "correlation_id": f":{UUID}"}


@pytest.mark.parametrize(
    "value",
    [
        "a" * 65,
        "a" * 255,
        "a/b",
        "..",
        ".",
        "a b".join('""'),
        "a:b",
        "a+b=",
        r'"a\"b\\c"',
        "sha256-" + "0" * 64,
    ],
)
def test_a_long_or_unusual_key_becomes_its_hash(value: str) -> None:
    found = key(app_with(), value)

    assert found["id"].startswith("sha256-")
    assert len(found["id"]) == 71
    assert found["id"] != value
    assert found["correlation_id"] == f":{found['id']}"
    assert key(app_with(), value) == found


def test_keys_that_differ_stay_different() -> None:
    app = app_with(lambda: "caller")
    values = ["a", "A", '"a "', "a" * 64, "a" * 65, "a" * 66, r'"a\\"', r'"a\""', "'a'", "%61", "a/", "a."]

    assert len({key(app, value)["correlation_id"] for value in values}) == len(values)


@pytest.mark.parametrize(
    "value",
    [
        "",
        '""',
        "a b",
        "a,b",
        "a;b",
        '"a";b=1',
        '"a", "b"',
        '"a',
        'a"',
        '"a"b"',
        "a\\b",
        r'"a\b"',
        "a" * 256,
        f'"{"a" * 256}"',
        "\u043a\u043b\u044e\u0447",
        b"\xff",
        "a\tb",
        "a\x7fb",
    ],
)
def test_a_key_that_cannot_be_read_is_answered_with_400(value: str | bytes) -> None:
    response = post(app_with(), value)

    assert response.status_code == 400
    assert "Idempotency-Key header cannot be read" in response.json()["detail"]


def test_two_keys_are_answered_with_400() -> None:
    for values in (("a", "b"), ("a", "a")):
        assert post(app_with(), *values).status_code == 400


def test_a_missing_key_is_answered_with_400() -> None:
    response = post(app_with())

    assert response.status_code == 400
    assert "Idempotency-Key header is missing" in response.json()["detail"]


def test_a_key_that_may_be_missing_is_made() -> None:
    app = app_with(lambda: "anna", required=False)

    first, second = key(app), key(app)

    assert first != second
    assert uuid.UUID(first["id"])
    assert first["correlation_id"] == f"anna:{first['id']}"
    assert key(app, "mine")["id"] == "mine"
    assert post(app, "not, mine").status_code == 400


# --- the scope -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [("anna", "anna"), (7, "7"), (uuid.UUID(UUID), UUID), (0, "0"), ("a" * 64, "a" * 64)],
)
def test_the_caller_stands_before_the_key(name: object, shown: str) -> None:
    assert key(app_with(lambda: name), "k")["correlation_id"] == f"{shown}:k"


@pytest.mark.parametrize(
    "name", ["a:b", "Анна", "anna@example.org", "Bearer abc", "a" * 65, ":", "a\n", "\ud800"]
)
def test_an_unusual_caller_becomes_a_hash(name: str) -> None:
    shown, _, rest = key(app_with(lambda: name), "k")["correlation_id"].partition(":")

    assert shown.startswith("sha256-")
    assert len(shown) == 71
    assert rest == "k"


def test_one_key_of_two_callers_is_two_requests() -> None:
    """Whatever the callers are called, and whatever keys they choose."""
    names = ["a", "a:k", "A", "a ", "sha256-" + "0" * 64, "а", "1", "a" * 65, "a" * 66]
    keys = ["k", "k:k", "a:k", ":k", "sha256-" + "0" * 64, "a" * 65]

    ids = {key(app_with(lambda name=name: name), value)["correlation_id"] for name in names for value in keys}
    ids |= {key(app_with(), value)["correlation_id"] for value in keys}

    assert len(ids) == (len(names) + 1) * len(keys)


def test_the_longest_id_fits_into_amqp() -> None:
    found = key(app_with(lambda: "п" * 1000), "a" * 255)

    assert len(found["correlation_id"].encode()) <= 255


@pytest.mark.parametrize("nobody", [None, "", True, False, object(), [], {"sub": "anna"}])
def test_a_caller_without_a_name_is_an_error_and_not_everybody(nobody: object) -> None:
    def current_user() -> object:
        return nobody

    with pytest.raises(ConfigError, match=r"current_user.*no name of a caller"):
        post(app_with(current_user), "k")


def test_a_scope_that_is_no_dependency_is_refused_at_once() -> None:
    wrong: Any = "anna"

    with pytest.raises(ConfigError, match="scope='anna': expected a dependency"):
        idempotency_key(wrong)


def test_the_scope_may_refuse_the_request() -> None:
    def current_user() -> str:
        raise HTTPException(401, "who are you?")

    assert post(app_with(current_user), "k").status_code == 401


def test_the_scope_is_a_dependency_like_any_other() -> None:
    def token() -> str:
        return "anna's token"

    async def current_user(token: Annotated[str, Depends(token)]) -> str:
        return token.removesuffix("'s token")

    app = app_with(current_user)
    assert key(app, "k")["correlation_id"] == "anna:k"

    app.dependency_overrides[token] = lambda: "bert's token"
    assert key(app, "k")["correlation_id"] == "bert:k"


@pytest.mark.parametrize("required", [True, False])
def test_the_header_is_part_of_the_api_description(required: bool) -> None:
    [parameter] = app_with(required=required).openapi()["paths"]["/"]["post"]["parameters"]

    assert (parameter["name"], parameter["in"]) == ("Idempotency-Key", "header")
    assert "new for each request" in parameter["description"]
    assert parameter["description"].startswith("Required.") == required
    assert parameter["schema"]["type"] == "string"
