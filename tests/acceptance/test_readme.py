"""Both READMEs do what they show: each Python block runs, and the tables list what the code has.

A block whose first line is ``# name.py``, and one with ``asyncio.run(``, is a program and runs as a process.
The others are one session: executed in order, with ``await`` at the top level, on a broker in memory.
"""

import asyncio
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from types import CodeType, ModuleType
from typing import Any

import pytest

import autosell_rmq
from autosell_rmq import RabbitMQ, RabbitMQConsumer, RabbitMQProducer, Settings
from autosell_rmq.codec import DeadLetterReason
from autosell_rmq.config import HandlerOptions
from autosell_rmq.testing import memory_server
from tests.acceptance.markdown import ROOT, Block, blocks
from tests.acceptance.snippets import compiled, execute

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(90)]

PAGES = ["README.md", "README.ru.md"]


def is_program(block: Block) -> bool:
    return "asyncio.run(" in block.code


# --- the session ---------------------------------------------------------------------------------------


class Session:
    """Executes blocks as one program; the handlers known so far are being consumed whenever it awaits."""

    def __init__(self, page: str) -> None:
        self._page = page
        # What the seed's snippets take for granted.
        self.names: dict[str, Any] = {
            "__name__": "readme",
            "asyncio": asyncio,
            "RabbitMQConsumer": RabbitMQConsumer,
            "RabbitMQProducer": RabbitMQProducer,
        }
        self._consumed = 0
        self._tested: set[str] = set()

    async def run(self, block: Block) -> None:
        code = compiled("\n" * block.line + block.code, f"{self._page} ({block.heading})")
        if uses_await(code):
            await self._consume()
            await execute(code, self.names)
        else:  # in a thread: the synchronous producer refuses to block an event loop
            await asyncio.to_thread(exec, code, self.names)
        if block.filename:  # later blocks import it
            sys.modules[block.filename.removesuffix(".py")] = module = ModuleType(block.filename)
            vars(module).update(self.names)
        for name in [name for name in self.names if name.startswith("test_")]:
            if name not in self._tested:
                self._tested.add(name)
                await self.names[name]()

    async def close(self) -> None:
        for value in set(filter(lambda value: isinstance(value, RabbitMQ), self.names.values())):
            await value.close()

    async def _consume(self) -> None:
        app = self.names.get("rmq")
        if isinstance(app, RabbitMQ) and len(app.handlers) != self._consumed:
            self._consumed = len(app.handlers)
            await app.stop_consuming()
            await app.start_consuming()


def uses_await(code: CodeType) -> bool:
    return bool(code.co_flags & 0x80)  # inspect.CO_COROUTINE


@pytest.fixture
def forgotten_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in ("shop", "test_shop"):
        if name not in before:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("forgotten_modules")
async def test_every_block_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(page)
    with memory_server() as server:
        monkeypatch.setenv("RABBITMQ_URL", server.url)
        try:
            for block in blocks(ROOT / page, "python", "hidden"):
                if not is_program(block):
                    await session.run(block)
        finally:
            await session.close()


# --- what the tables say -------------------------------------------------------------------------------


def rows(page: str, first_column: str) -> dict[str, str]:
    """The first two columns of a table, by the title of its first column."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.search(rf"^\| {re.escape(first_column)} \|.*\n\|[ |-]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert found, f"{page} has no table that begins with {first_column!r}"
    cells = [[cell.strip().strip("`") for cell in row.split(" | ")] for row in found[1].splitlines()]
    return {name.removeprefix("| `"): default for name, default, *_ in cells}


@pytest.mark.parametrize(("page", "title"), [("README.md", "setting"), ("README.ru.md", "настройка")])
def test_table_of_settings_is_complete(page: str, title: str) -> None:
    defaults = {f.name: f.default for f in fields(Settings) if f.name != "url"}

    assert {name: eval(value) for name, value in rows(page, title).items()} == defaults


@pytest.mark.parametrize(("page", "title"), [("README.md", "option"), ("README.ru.md", "опция")])
def test_table_of_handler_options_is_complete(page: str, title: str) -> None:
    table = rows(page, title)
    own = {f.name: f.default for f in fields(HandlerOptions) if f.name != "queue"}
    for name in own.keys() & {f.name for f in fields(Settings)}:
        del own[name]

    assert set(table) == set(own)
    for name, default in own.items():
        if default is not MISSING and name != "arguments":
            assert eval(table[name]) == default, name
    assert table["dlq"] == "<queue>_dlq"
    assert table["timeout"] == "handler_timeout"


@pytest.mark.parametrize("page", PAGES)
def test_table_of_reasons_is_complete(page: str) -> None:
    assert set(rows(page, "`reason_code`")) == {reason.value for reason in DeadLetterReason}


@pytest.mark.parametrize("page", PAGES)
def test_names_in_backquotes_that_look_like_errors_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:Publish|Reply|Broker|Encode|Config|Message)[A-Z]\w+)`", text))

    assert named
    assert {name for name in named if not hasattr(autosell_rmq, name)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    code = "\n".join(block.code for block in blocks(ROOT / page, "sh", "bash"))
    targets = set(re.findall(r"^make (\w+)", code, re.MULTILINE))

    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
