"""The FastAPI sections of both READMEs: their app starts, asks itself, and shows its pages."""

from pathlib import Path
from types import ModuleType

import pytest

from autosell_rmq.testing import memory_server
from tests.acceptance.markdown import ROOT, Block, blocks
from tests.fastapi.pytest_runs import run_pytest
from tests.fastapi.serving import serving

PAGES = ["README.md", "README.ru.md"]


def section(page: str) -> dict[str, Block]:
    """Its programs; they are marked `py`, as those marked `python` are one session without FastAPI."""
    shown = [block for block in blocks(ROOT / page, "py") if block.heading.startswith("FastAPI")]
    return {block.filename or "": block for block in shown}


@pytest.mark.parametrize("page", PAGES)
async def test_the_app_of_the_readme(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block = section(page)["shop.py"]
    with memory_server() as server:
        monkeypatch.setenv("RABBITMQ_URL", server.url)
        module = ModuleType("shop")
        exec(compile("\n" * block.line + block.code, page, "exec"), vars(module))

        async with serving(module.app) as client:
            order = await client.post("/orders", json={"item": "lamp", "quantity": 2})
            assert order.json()["data"] == {"total": 50}
            for path in ("/health/live", "/health/ready", "/rmq/docs", "/rmq/asyncapi.json"):
                assert (await client.get(path)).status_code == 200


@pytest.mark.acceptance
@pytest.mark.timeout(60)
@pytest.mark.parametrize("page", PAGES)
def test_its_tests_pass(page: str, tmp_path: Path) -> None:
    files = section(page)
    assert sorted(files) == ["shop.py", "test_shop.py"]
    for name, block in files.items():
        (tmp_path / name).write_text(block.code, encoding="utf-8")

    assert "1 passed" in run_pytest(tmp_path)
