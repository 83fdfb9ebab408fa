"""``python -m benchmarks``: measure, print the numbers to reach, write JSON, Markdown and pictures.

``--full`` takes every client and the curves (a quarter of an hour on two cores); without it only the rows
that the numbers to reach are about (about three minutes). It leaves nothing on the broker or the database.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from benchmarks import install, markdown, plot, report
from benchmarks.rounds import Stage, interleaved
from benchmarks.works import Case, Growth, Work, growths, works

URL = os.environ.get("RABBITMQ_URL") or "amqp://guest:guest@127.0.0.1:5672/"
POSTGRES = os.environ.get("POSTGRES_URL") or "postgres://postgres:postgres@127.0.0.1:5432"
DOCS = install.ROOT / "docs"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def main() -> int:
    """Run what the arguments ask for; 0 also where a number was missed: the table says so."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every client, and the curves")
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are taken")
    parser.add_argument("--only", nargs="*", metavar="WORK", help="works or curves by key")
    parser.add_argument("--docs", action="store_true", help="put the results into docs/benchmarks.md, too")
    given = parser.parse_args()
    peers = install.peers_python()
    with _stage(peers) as stage:
        found = report.Found(
            report.machine(
                _rabbitmq(),
                {"autosell-rmq": install.versions(stage.python), "peers": install.versions(peers)},
            )
        )
        found.machine["rounds"] = given.rounds
        for work in works(full=given.full):
            if not given.only or work.key in given.only:
                found.groups.append(_measured(stage, work, given.rounds))
        for growth in growths() if given.full else ():
            if not given.only or growth.key in given.only:
                found.groups.append(_grown(stage, growth, given.rounds))
    found.machine["load_after"] = round(os.getloadavg()[0], 1)
    _write(found, docs=given.docs)
    return 0


def _measured(stage: Stage, work: Work, rounds: int) -> report.Group:
    print(f"\n{work.title}", flush=True)
    places = {case.title: f"{work.key}.{index}" for index, case in enumerate(work.cases)}
    found = interleaved(stage, work, work.cases, rounds, lambda case: places[case.title])
    group = report.Group(work.key, work.title)
    for case in work.cases:
        group.rows.append(row := report.row(case.title, case.kind, found[case.title]))
        print("  " + _said(row), flush=True)
    return group


def _grown(stage: Stage, growth: Growth, rounds: int) -> report.Group:
    print(f"\n{growth.title}", flush=True)
    group = report.Group(growth.key, growth.title, axis=growth.axis)
    work = Work(key=growth.key, title=growth.title, work=growth.work, n=growth.n, cases=())
    for point in growth.points:
        cases = tuple(case for at, case in growth.cases() if at == point)

        def place(case: Case, point: int = point) -> str:
            shared = growth.axis == "depth"  # the same deep queue for all of them: it takes long to fill
            return f"{growth.key}.{point}" + ("" if shared else f".{case.client.name.split(',')[0]}")

        for title, results in interleaved(stage, work, cases, rounds, place).items():
            row = report.row(title, "classic", results)
            group.points.setdefault(title, {})[point] = row
            print(f"  {point:>9,}  {_said(row)}", flush=True)
        if growth.axis == "depth":
            stage.clean()
    return group


def _said(row: report.Row) -> str:
    if row.skipped:
        return f"{row.title:42} {row.skipped}"
    shown = ("cpu_us", "server_cpu_us", "rate", "wall_us", "p50_us", "rss_mb")
    values = "  ".join(f"{name} {row.medians[name]:,.1f}" for name in shown if name in row.medians)
    return f"{row.title:42} {values}"


def _write(found: report.Found, *, docs: bool) -> None:
    folder = install.BUILD
    folder.mkdir(parents=True, exist_ok=True)
    plots = []
    for group in found.groups:
        lines = {
            title: {point: row.medians["cpu_us"] for point, row in rows.items() if row.medians}
            for title, rows in group.points.items()
        }
        lines = {title: line for title, line in lines.items() if line}
        if lines:
            name = f"{group.key}.svg"
            picture = plot.svg(group.title, group.axis, "CPU of the client, µs per message", lines)
            (folder / name).write_text(picture)
            plots.append((group.title, f"benchmarks/{name}"))
    (folder / "results.json").write_text(found.as_json())
    text = markdown.page(found, plots)
    (folder / "results.md").write_text(text.replace("](benchmarks/", "]("))
    print("\nNumbers to reach")
    for line in markdown.targets_table(found):
        print("  {:15} {:50} {:>12} {:>12}  {}".format(*line))
    if docs:
        page = DOCS / "benchmarks.md"
        before, _, rest = page.read_text().partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}")
        (DOCS / "benchmarks").mkdir(exist_ok=True)
        for file in ("results.json", *(Path(name).name for _, name in plots)):
            shutil.copy(folder / file, DOCS / "benchmarks" / file)
    print(f"\nwritten: {folder.relative_to(install.ROOT)}/results.md, .json" + (", docs" if docs else ""))


@contextmanager
def _stage(peers: Path) -> Generator[Stage]:
    """A stage with a database of its own; both are cleaned up at the end, whatever happens."""
    limit, no_limit = install.limit_program()
    python = Path(sys.executable)
    with _database() as database:
        stage = Stage(
            url=URL,
            prefix=f"bench.{os.getpid()}",
            python=python,
            peers_python=peers,
            limit=limit,
            no_limit=no_limit,
            uvloop={True: "uvloop" in install.versions(python), False: "uvloop" in install.versions(peers)},
            database=database,
        )
        if database:
            stage.migrate()
        try:
            yield stage
        finally:
            stage.clean()


@contextmanager
def _database() -> Generator[str | None]:
    name = f"bench_rmq_{os.getpid()}"
    try:
        admin = psycopg.connect(POSTGRES, dbname="postgres", autocommit=True, connect_timeout=5)
    except psycopg.OperationalError:
        yield None
        return
    with admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield name
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _rabbitmq() -> str:
    """The broker's version, as it says itself."""
    command = [sys.executable, "-c", _ASK_VERSION, URL]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "of unknown version"


_ASK_VERSION = """
import asyncio, sys, aiormq
async def main():
    connection = await aiormq.connect(sys.argv[1])
    print(connection.server_properties["version"])
    await connection.close()
asyncio.run(main())
"""


if __name__ == "__main__":
    sys.exit(main())
