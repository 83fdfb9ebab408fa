"""What was found, as data: medians of the rounds, the machine, JSON."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Row:
    """One case: the medians of its rounds, or why it has none.

    Attributes:
        kind: of the queue.
        spread: of the first field that rows are compared by, the largest over the smallest round.
    """

    title: str
    kind: str
    medians: dict[str, float] = field(default_factory=dict)
    rounds: list[dict[str, float]] = field(default_factory=list)
    skipped: str = ""

    @property
    def spread(self) -> float:
        """How far the rounds' CPU was apart: the largest over the smallest."""
        values = [each["cpu_us"] for each in self.rounds]
        return max(values) / min(values) if values and min(values) > 0 else 1.0


@dataclass(slots=True)
class Group:
    """The rows of one work, or the points of one curve.

    Attributes:
        axis: empty for a table; for a curve what its points are called.
        points: of a curve: for each row's title its medians by point.
    """

    key: str
    title: str
    rows: list[Row] = field(default_factory=list)
    axis: str = ""
    points: dict[str, dict[int, Row]] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """All that one run of the benchmarks found."""

    machine: dict[str, Any]
    groups: list[Group] = field(default_factory=list)

    def get(self, work: str, row: str, field_: str) -> float | None:
        """A median; None where it was not measured."""
        for group in self.groups:
            if group.key == work:
                for each in group.rows:
                    if each.title == row:
                        return each.medians.get(field_)
        return None

    def as_json(self) -> str:
        """Everything, each round included."""

        def row(each: Row) -> dict[str, Any]:
            return {
                "queue": each.kind,
                "medians": each.medians,
                "rounds": each.rounds,
                "skipped": each.skipped,
            }

        groups = {
            group.key: {
                "title": group.title,
                "rows": {each.title: row(each) for each in group.rows},
                "axis": group.axis,
                "points": {
                    title: {str(point): row(each) for point, each in points.items()}
                    for title, points in group.points.items()
                },
            }
            for group in self.groups
        }
        return json.dumps({"machine": self.machine, "groups": groups}, indent=1, ensure_ascii=False) + "\n"


def row(title: str, kind: str, results: Sequence[Mapping[str, float]] | str) -> Row:
    """The medians of a case's rounds."""
    if isinstance(results, str):
        return Row(title, kind, skipped=results)
    names = {name for result in results for name in result}
    medians = {name: statistics.median(r[name] for r in results if name in r) for name in sorted(names)}
    return Row(title, kind, medians, [dict(result) for result in results])


def machine(broker: str, versions: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Where and when this was measured, and how busy it was: numbers without that say little."""
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="minutes"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "rabbitmq": broker,
        "load_before": round(os.getloadavg()[0], 1),
        "commit": _commit(),
        "versions": {where: dict(found) for where, found in versions.items()},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return result.stdout.strip() or "unknown"
