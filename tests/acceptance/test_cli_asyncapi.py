"""``autosell-rmq asyncapi``: the document of an app, from the command line."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from tests.acceptance.processes import running
from tests.support.asyncapi import problems

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(90)]

COMMAND = (sys.executable, "-m", "autosell_rmq", "asyncapi")
# Nobody listens there: the command must not connect.
URL = "amqp://shop:s3cret@127.0.0.1:1/shop"

SHOP = f"""\
from autosell_rmq import RabbitMQ

rmq = RabbitMQ({URL!r})

@rmq.handler("orders")
async def create_order(order: dict[str, int]) -> int:
    \"\"\"Принять заказ.\"\"\"
    return 1
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    return tmp_path


async def test_json(place: Path) -> None:
    async with running(*COMMAND, "shop:rmq", cwd=place) as run:
        assert await run.exit_code() == 0, run.transcript
    document = json.loads(run.output)

    assert problems(document) == []
    assert document["info"] == {"title": "shop", "version": "0.1.0"}
    assert "Принять заказ." in run.output
    assert "s3cret" not in run.output
    assert run.errors == []


async def test_yaml_with_words_of_its_own(place: Path) -> None:
    words = ("--title", "Orders", "--version", "1.10", "--description", "Takes orders.")
    async with running(*COMMAND, "shop:rmq", "--yaml", *words, cwd=place) as run:
        assert await run.exit_code() == 0, run.transcript

    assert yaml.safe_load(run.output)["info"] == {
        "title": "Orders",
        "version": "1.10",
        "description": "Takes orders.",
    }


async def test_yaml_without_pyyaml_is_one_line(place: Path) -> None:
    (place / "yaml.py").write_text("raise ImportError", encoding="utf-8")
    async with running(*COMMAND, "shop:rmq", "--yaml", cwd=place) as run:
        assert await run.exit_code() == 1, run.transcript

    [line] = run.errors
    assert line.startswith("error: MissingExtra: YAML needs PyYAML: pip install 'autosell-rmq[fastapi]'")
    assert run.lines == []
