"""What was found, as a page of Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report import Found, Group, Row
from benchmarks.targets import TARGETS

_COLUMNS = (
    ("CPU µs", "cpu_us", "{:,.1f}"),
    ("server CPU µs", "server_cpu_us", "{:,.1f}"),
    ("messages/s", "rate", "{:,.0f}"),
    ("wall µs", "wall_us", "{:,.0f}"),
    ("p50 µs", "p50_us", "{:,.0f}"),
    ("p99 µs", "p99_us", "{:,.0f}"),
    ("RSS MB", "rss_mb", "{:,.0f}"),
)


def page(found: Found, plots: Sequence[tuple[str, str]]) -> str:
    """The whole report; `plots` are the titles and file names of its pictures."""
    parts = [_machine(found), _targets(found), *(_group(group) for group in found.groups if group.rows)]
    if plots:
        pictures = "\n\n".join(f"![{title}]({name})" for title, name in plots)
        parts.append(f"### How cost grows\n\n{pictures}")
    parts += [_curve(group) for group in found.groups if group.points]
    return "\n\n".join(parts) + "\n"


def targets_table(found: Found) -> list[list[str]]:
    """Each number to reach, with what was measured."""
    return [[target.work, target.what, target.wanted, *target.verdict(found)] for target in TARGETS]


def _machine(found: Found) -> str:
    at = found.machine
    versions = "; ".join(
        f"{where}: " + ", ".join(f"{name} {version}" for name, version in sorted(names.items()))
        for where, names in at["versions"].items()
    )
    return (
        f"Measured {at['date']} on {at['cores']} cores of {at['cpu']}, {at['system']}, Python {at['python']},"
        f" RabbitMQ {at['rabbitmq']} on the same machine; commit {at['commit']}; load average before"
        f" {at['load_before']}, after {at.get('load_after', '–')}; {at.get('rounds', '–')} rounds."
        f"\n\n{versions}."
    )


def _targets(found: Found) -> str:
    head = ["work", "number", "to reach", "measured", ""]
    return "### Numbers to reach\n\n" + _table(head, targets_table(found))


def _group(group: Group) -> str:
    columns = [column for column in _COLUMNS if any(column[1] in row.medians for row in group.rows)]
    head = ["client", "queue", *(name for name, _, _ in columns), "spread"]
    lines = [_line(row, columns) for row in group.rows]
    return f"### {group.title}\n\n" + _table(head, lines)


def _line(row: Row, columns: Sequence[tuple[str, str, str]]) -> list[str]:
    if row.skipped:
        return [row.title, row.kind, f"*{row.skipped}*", *("" for _ in columns)]
    cells = [form.format(row.medians[key]) if key in row.medians else "–" for _, key, form in columns]
    return [row.title, row.kind, *cells, f"{row.spread:.2f}x"]


def _curve(group: Group) -> str:
    points = sorted({point for rows in group.points.values() for point in rows})
    lines = []
    for title, rows in group.points.items():
        cells = [
            f"{rows[p].medians['cpu_us']:,.1f}" if p in rows and rows[p].medians else "–" for p in points
        ]
        lines.append([title, *cells])
    head = ["CPU µs", *(f"{point:,}" for point in points)]
    return f"#### {group.title}\n\n" + _table(head, lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
