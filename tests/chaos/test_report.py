"""The table, and that the tests which the docs name are there."""

from __future__ import annotations

import ast
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.acceptance.markdown import ROOT
from tests.chaos import report
from tests.chaos.ledger import Figures
from tests.chaos.report import Row

FIGURES = Figures(
    accepted=9, answered=8, lost=1, doubled=2, different=0, failed={"A": 3, "B": 1}, recovery=1.25
)
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", report.DOCS.read_text(encoding="utf-8"))


def test_a_row_says_what_came_of_it() -> None:
    row = Row("2", "a cut", "lease", FIGURES, ["noticed"], passed=True)

    assert row.cells() == ("2", "a cut", "lease", "9", "8", "4", "1", "2", "1.2 s", "noticed")
    assert Row("2", "a cut").cells()[-1] == "FAILED"


def test_rows_are_in_the_order_of_the_matrix() -> None:
    rows = [Row(number, "") for number in ("66b", "10", "66a", "2")]

    assert [row.number for row in sorted(rows, key=report.order)] == ["2", "10", "66a", "66b"]


def test_parts_of_a_run_make_one_table_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Before\n<!-- table: begin -->\nold\n<!-- table: end -->\n# After\n")
    monkeypatch.setattr(report, "DOCS", page)
    monkeypatch.setattr(report, "machine", lambda: {"processors": 2})
    report.write([Row("1", "a"), Row("2", "b", figures=FIGURES, passed=True)], tmp_path / "first")
    report.write([Row("1", "a", passed=True)], tmp_path / "second")

    report.into_docs([tmp_path / "first/chaos.json", tmp_path / "second/chaos.json"])

    text = page.read_text()
    assert "FAILED" not in text
    assert "old" not in text
    assert text.startswith("# Before\n<!-- table: begin -->\n")
    assert text.endswith("<!-- table: end -->\n# After\n")
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")][2:] == ["| 1", "| 2"]


def test_a_row_comes_back_as_it_was() -> None:
    row = Row("2", "b", "lease", FIGURES, ["x"], passed=True)

    assert Row.read(asdict(row)) == row


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_the_docs_name_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))

    assert not name or name in {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
