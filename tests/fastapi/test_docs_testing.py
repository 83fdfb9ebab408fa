"""docs/fastapi-testing.md: its blocks are an app and its tests, which pass in a pytest of their own."""

import re
from pathlib import Path

import pytest

from autosell_rmq.testing import RabbitMQTester
from tests.acceptance.markdown import ROOT, blocks
from tests.fastapi.pytest_runs import run_pytest

PAGE = ROOT / "docs" / "fastapi-testing.md"


@pytest.mark.acceptance
@pytest.mark.timeout(90)
def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    shown = blocks(PAGE, "python")
    for block in shown:
        assert block.filename, f"the block at line {block.line} names no file"
        (tmp_path / block.filename).write_text(block.code, encoding="utf-8")
    output = run_pytest(tmp_path)

    count = sum(len(re.findall(r"^(?:async )?def test_", block.code, re.MULTILINE)) for block in shown)
    assert f"{count} passed" in output


def test_the_table_names_what_the_tester_has() -> None:
    public = {name for name in dir(RabbitMQTester) if not name.startswith("_")} | {"failures"}
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("| `broker.…` |") :].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines()[2:]]

    assert {name for row in rows for name in re.findall(r"`(\w+)", row)} == public


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGE.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        path = (PAGE.parent / file) if file else PAGE
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target
