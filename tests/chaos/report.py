"""The table of what was broken and what came of it: on the terminal, as Markdown, as JSON.

``python -m tests.chaos.report FILE.json ...`` puts the rows of a run, or of the parts of one, into the docs.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.acceptance.markdown import ROOT
from tests.chaos.ledger import Figures

DOCS = ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- table: begin -->", "<!-- table: end -->"

_COLUMNS = (
    "row",
    "injected",
    "mode",
    "accepted",
    "answered",
    "refused",
    "lost",
    "double effects",
    "recovery",
    "result",
)


@dataclass
class Row:
    """One fault, once injected.

    Attributes:
        number: of the row in the matrix.
        injected: what was broken, in words.
        mode: of the workers; empty where there are none.
        figures: of the load, where there was one.
        seen: what else the row is about, such as ``noticed after 8.1 s``.
        passed: whether everything held.
    """

    number: str
    injected: str
    mode: str = ""
    figures: Figures | None = None
    seen: list[str] = field(default_factory=list)
    passed: bool = False

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Row:
        """As `write` has written it."""
        figures = fields["figures"]
        return cls(**{**fields, "figures": Figures(**figures) if figures is not None else None})

    def cells(self) -> tuple[str, ...]:
        said = "; ".join([*([] if self.passed else ["FAILED"]), *self.seen]) or "held"
        if (figures := self.figures) is None:
            return (self.number, self.injected, self.mode, *[""] * 6, said)
        counts = (
            figures.accepted,
            figures.answered,
            sum(figures.failed.values()),
            figures.lost,
            figures.doubled,
        )
        recovery = f"{figures.recovery:.1f} s" if figures.recovery is not None else ""
        return (self.number, self.injected, self.mode, *map(str, counts), recovery, said)


def order(row: Row) -> tuple[int, str, str]:
    """As the matrix has them: 2 before 10, 66a after 66."""
    digits = "".join(c for c in row.number if c.isdigit())
    return int(digits or 0), row.number, row.mode


def plain(rows: list[Row]) -> list[str]:
    """Lines for a terminal."""
    table = [_COLUMNS, *(row.cells() for row in sorted(rows, key=order))]
    widths = [max(len(line[n]) for line in table) for n in range(len(_COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table]


def markdown(rows: list[Row]) -> str:
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *(row.cells() for row in sorted(rows, key=order))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    version = subprocess.run(
        ["rabbitmqctl", "version"], capture_output=True, text=True, check=False, timeout=60
    ).stdout.strip()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processors": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "rabbitmq": version,
        "load average": [round(value, 1) for value in os.getloadavg()],
    }


def write(rows: list[Row], folder: Path) -> None:
    """``chaos.md`` and ``chaos.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    about = machine()
    (folder / "chaos.md").write_text(_page(rows, about), encoding="utf-8")
    document = {"machine": about, "rows": [asdict(row) for row in sorted(rows, key=order)]}
    (folder / "chaos.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def into_docs(files: list[Path]) -> None:
    """Replace the table of the docs by the rows of these files; of one that is in several the last counts."""
    rows: dict[tuple[str, str, str], Row] = {}
    about: dict[str, Any] = {}
    for file in files:
        document = json.loads(file.read_text(encoding="utf-8"))
        about = document["machine"]
        for row in map(Row.read, document["rows"]):
            rows[row.number, row.injected, row.mode] = row
    page = DOCS.read_text(encoding="utf-8")
    before, _, rest = page.partition(_BEGIN)
    after = rest.partition(_END)[2]
    table = _page(list(rows.values()), about)
    DOCS.write_text(f"{before}{_BEGIN}\n\n{table}\n{_END}{after}", encoding="utf-8")


def _page(rows: list[Row], about: dict[str, Any]) -> str:
    return f"{markdown(rows)}\n{', '.join(f'{name} {value}' for name, value in about.items())}\n"


if __name__ == "__main__":
    into_docs([Path(name) for name in sys.argv[1:]])
