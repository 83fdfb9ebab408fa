"""The routes of the document: what they serve, and under which addresses."""

import json
from typing import Any

import pytest
import yaml
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient

from autosell_rmq import RabbitMQ, asyncapi_document
from autosell_rmq_fastapi import rmq_docs_router
from tests.support.documented_shop import SECRET, documented_shop

PATHS = ("/rmq/docs", "/rmq/asyncapi.json", "/rmq/asyncapi.yaml")


def site(**options: Any) -> FastAPI:  # noqa: ANN401 - FastAPI's own
    return FastAPI(title="Shop", version="1.4.0", description="Takes orders.", **options)


def client_of(app: FastAPI, rmq: RabbitMQ | None = None) -> TestClient:
    app.include_router(rmq_docs_router(rmq or documented_shop()))
    return TestClient(app)


def test_json_and_yaml_are_the_document() -> None:
    client = client_of(site())
    expected = asyncapi_document(
        documented_shop(), title="Shop", version="1.4.0", description="Takes orders."
    )
    as_json, as_yaml = client.get("/rmq/asyncapi.json"), client.get("/rmq/asyncapi.yaml")

    assert json.loads(as_json.content) == yaml.safe_load(as_yaml.content) == expected
    assert as_json.headers["content-type"] == "application/json"
    assert as_yaml.headers["content-type"] == "application/yaml"


def test_title_and_version_may_be_given() -> None:
    app = site()
    app.include_router(rmq_docs_router(documented_shop(), title="Billing", version="2", description="Pays."))
    info = TestClient(app).get("/rmq/asyncapi.json").json()["info"]

    assert info == {"title": "Billing", "version": "2", "description": "Pays."}


@pytest.mark.parametrize("path", PATHS)
def test_no_login_is_shown(path: str) -> None:
    text = client_of(site()).get(path).text

    assert "rabbit.internal" in text
    assert SECRET not in text
    assert "shopkeeper" not in text


def test_they_are_no_part_of_the_openapi_schema() -> None:
    assert client_of(site()).get("/openapi.json").json()["paths"] == {}


def test_what_is_registered_later_is_shown() -> None:
    rmq = documented_shop()
    client = client_of(site(), rmq)

    @rmq.handler("returns")
    async def take_back(payload: dict[str, object]) -> None: ...

    assert "returns.receive" in client.get("/rmq/asyncapi.json").json()["operations"]


@pytest.mark.parametrize("path", PATHS)
def test_a_prefix_and_a_dependency_are_those_of_include_router(path: str) -> None:
    def refused() -> None:
        raise HTTPException(401)

    app = site()
    app.include_router(rmq_docs_router(documented_shop()), prefix="/open")
    app.include_router(rmq_docs_router(documented_shop()), prefix="/closed", dependencies=[Depends(refused)])
    client = TestClient(app)

    assert client.get(f"/open{path}").status_code == 200
    assert client.get(f"/closed{path}").status_code == 401


@pytest.mark.parametrize("path", PATHS)
def test_a_router_and_a_mounted_app_may_have_them(path: str) -> None:
    nested, mounted, app = APIRouter(prefix="/v1"), site(), site()
    nested.include_router(rmq_docs_router(documented_shop()))
    mounted.include_router(rmq_docs_router(documented_shop()))
    app.include_router(nested)
    app.mount("/shop", mounted)
    client = TestClient(app)

    assert client.get(f"/v1{path}").status_code == client.get(f"/shop{path}").status_code == 200


def test_the_page_links_to_the_others_behind_a_proxy() -> None:
    app = site()
    app.include_router(rmq_docs_router(documented_shop()), prefix="/internal")
    client = TestClient(app, root_path="/behind/a/proxy")
    page = client.get("/internal/rmq/docs")

    assert page.status_code == 200
    # Relative addresses lead on from wherever the page was found.
    for name in ("asyncapi.json", "asyncapi.yaml"):
        assert f'href="{name}"' in page.text
        assert client.get(str(page.url.join(name))).status_code == 200
    assert "/internal" not in page.text


@pytest.mark.parametrize("path", PATHS)
def test_a_memory_broker_and_no_handlers_are_fine(path: str) -> None:
    assert client_of(site(), RabbitMQ("memory://")).get(path).status_code == 200
