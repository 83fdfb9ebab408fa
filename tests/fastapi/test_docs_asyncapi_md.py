"""docs/asyncapi.md: its blocks are modules and a session, and run."""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from fastapi.testclient import TestClient

from tests.acceptance.markdown import ROOT, blocks

PAGE = ROOT / "docs" / "asyncapi.md"


@pytest.fixture
def modules() -> Iterator[dict[str, ModuleType]]:
    """The blocks that name a file, imported under that name for as long as the test runs."""
    found: dict[str, ModuleType] = {}
    for block in blocks(PAGE, "python"):
        if block.filename:
            module = ModuleType(block.filename.removesuffix(".py"))
            sys.modules[module.__name__] = found[module.__name__] = module
            exec(compile(block.code, block.filename, "exec"), vars(module))
    yield found
    for name in found:
        del sys.modules[name]


def test_the_session_runs(modules: dict[str, ModuleType]) -> None:
    names: dict[str, object] = {}
    sessions = [block for block in blocks(PAGE, "python") if not block.filename]
    for block in sessions:
        exec(compile("\n" * block.line + block.code, str(PAGE), "exec"), names)

    assert len(sessions) == 2


def test_the_page_is_there(modules: dict[str, ModuleType]) -> None:
    page = TestClient(modules["web"].app).get("/rmq/docs")

    assert "Create an order and reserve its stock." in page.text
    assert "order.*" in page.text


def test_the_dependency_stands_in_front(modules: dict[str, ModuleType]) -> None:
    client = TestClient(modules["closed"].app)

    assert client.get("/internal/rmq/docs").status_code == 401
    assert client.get("/internal/rmq/docs", headers={"X-User": "ada"}).status_code == 200


def test_the_commands_are_those_of_the_command_line() -> None:
    commands = [line for block in blocks(PAGE, "sh") for line in block.code.splitlines()]

    assert all(line.startswith("autosell-rmq asyncapi shop:rmq --title Shop") for line in commands)
