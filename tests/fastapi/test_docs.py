"""docs/fastapi.md: its blocks are a program that type-checks as ours does, and runs."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.acceptance.markdown import ROOT, blocks

PAGE = ROOT / "docs" / "fastapi.md"


def code(filename: str) -> str:
    """All blocks of one file, in order."""
    return "".join(block.code for block in blocks(PAGE, "python") if block.filename == filename)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("RABBITMQ_URL", "memory://shop")
    namespace: dict[str, Any] = {"__name__": "shop"}
    exec(compile(code("shop.py"), "shop.py", "exec"), namespace)
    return namespace


def app(shop: dict[str, Any], name: str) -> TestClient:
    found = shop[name]
    assert isinstance(found, FastAPI)
    return TestClient(found)


def test_the_shop(shop: dict[str, Any]) -> None:
    with app(shop, "app") as client:
        order = {"item": "lamp", "quantity": 2}
        assert client.post("/orders", json=order).json() == {"item": "lamp", "price": "19.80"}
        assert client.post("/carts", json=order).json() == {"status": "accepted"}
        assert client.get("/price/lamp").json() == "9.90"
        assert client.get("/health/ready").json() == {"status": "ready", "problems": []}
        with client.websocket_connect("/prices") as socket:
            socket.send_json(order)
            assert socket.receive_json()["data"] == "19.80"


def test_several_objects(shop: dict[str, Any]) -> None:
    with app(shop, "both") as client:
        for path in ("/bills", "/bills/sync"):
            assert client.post(path, json={"item": "lamp"}).json() == "a bill for 1 of lamp"


def test_the_apps_own_lifespan(shop: dict[str, Any]) -> None:
    with app(shop, "warehouse") as client:
        assert client.post("/stock", json={"item": "lamp", "quantity": 3}).json() is True
        assert client.post("/stock", json={"item": "lamp", "quantity": 4}).json() is False


@pytest.mark.acceptance
@pytest.mark.timeout(120)
def test_type_checkers_agree(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(code("shop.py"), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(tmp_path / "shop.py")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_block_names_its_file() -> None:
    assert [block.line for block in blocks(PAGE, "python") if block.filename is None] == []


def test_links_lead_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        assert not file or (PAGE.parent / file).exists(), target
        assert not anchor or file or anchor in headings, target
