"""Runs the cases: each in a process of its own, in turns, several rounds."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from autosell_rmq import HandlerKwargs
from benchmarks import install
from benchmarks.clients import DJANGO, OURS, Client
from benchmarks.wire import Address, Template, Wire
from benchmarks.works import Case, Work

PATIENCE = 600.0  # seconds that one run may take
MOST_BYTES = 80_000_000  # of bodies in one run
FEWEST = 50  # messages, however slow or large


class Failed(Exception):
    """A peer ended without a result; the text is its last words."""


class Skipped(Exception):
    """The case cannot be measured here; the text says why, and the table shows it."""


type Result = dict[str, float]


@dataclass(slots=True)
class Stage:
    """Where the runs take place, and what they leave to be cleaned up.

    Attributes:
        prefix: of every queue.
        database: of the Django cases; None where there is no PostgreSQL.
    """

    url: str
    prefix: str
    python: Path
    peers_python: Path
    limit: Path | None
    no_limit: str
    uvloop: dict[bool, bool]
    database: str | None
    _templates: dict[str, Template] = field(default_factory=dict)
    _queues: set[str] = field(default_factory=set)
    _declared: set[str] = field(default_factory=set)

    def run(self, work: Work, case: Case, place: str) -> Result:
        """One case once; `place` names its queues."""
        self._check(case)
        n = messages(work, case)
        queues = [f"{self.prefix}.{place}" + (f".{i}" if i else "") for i in range(case.queues)]
        if work.work == "store":
            return self._measured(case, self._spec(case, work.work, n, queues))
        self._prepare(case, queues)
        if work.work in ("consume", "consume_sync"):
            if case.late:
                return self._filled_late(case, n, queues)
            self._fill(case, queues, n)
        if work.work == "request":
            return self._served(case, n, queues)
        return self._measured(case, self._spec(case, work.work, n, queues))

    def migrate(self) -> None:
        """Make the tables of the Django cases."""
        case = Case(DJANGO)
        self._measured(case, self._spec(case, "migrate", 1, [self.prefix]))

    def clean(self) -> None:
        """Delete every queue and exchange of the run."""
        with Wire(self.url) as wire:
            for name in sorted(self._queues):
                for suffix in ("", "_dlq", ".dlq", ".delay", ".DQ", ".XQ"):
                    wire.delete(name + suffix)
                wire.delete_exchange(f"{name}.exchange")
                wire.delete_exchange(name)

    # --- before a run --------------------------------------------------------------------------------

    def _check(self, case: Case) -> None:
        if case.client.script is None and self.limit is None:
            raise Skipped(self.no_limit)
        if case.loop == "uvloop" and not self.uvloop[case.client.ours]:
            raise Skipped("uvloop is not installed")
        if case.needs and case.needs not in HandlerKwargs.__optional_keys__:
            raise Skipped(f"handlers have no option {case.needs} yet")
        if case.client is DJANGO and self.database is None:
            raise Skipped("PostgreSQL does not answer")

    def _prepare(self, case: Case, queues: Sequence[str]) -> None:
        self._queues.update(queues)
        with Wire(self.url) as wire:
            for queue in queues:
                if not case.client.declares:
                    wire.declare(queue, kind=case.kind)
                    wire.declare(f"{queue}_dlq", kind=case.kind)
                    if not case.depth:
                        wire.purge(queue)

    def _fill(self, case: Case, queues: list[str], n: int) -> None:
        """Put `n` messages, or the depth that is asked for, into the queues."""
        template = self._template(case, queues)
        with Wire(self.url) as wire:
            if case.depth:  # the queue is everybody's, and to handle what another has had costs some more
                wire.drop_redelivered(queues[0])
                wire.fill(queues[0], template, max(case.depth, n) - wire.depth(queues[0]))
                return
            for index, queue in enumerate(queues):
                if not case.late:
                    wire.purge(queue)
                wire.fill(queue, template, n // len(queues) + (index < n % len(queues)))

    def _template(self, case: Case, queues: list[str]) -> Template:
        """A message of the peer's own, published once; that also declares the queues of who declares them."""
        client = OURS if case.client is DJANGO or case.depth else case.client
        key = f"{client.name} {case.size}"
        if key not in self._templates or (client.declares and queues[0] not in self._declared):
            by = Case(client, size=case.size)
            self._measured(by, self._spec(by, "publish", 1, queues))
            self._declared.add(queues[0])
            with Wire(self.url) as wire:
                self._templates[key] = wire.take(queues[0])
        return self._templates[key]

    # --- the run -------------------------------------------------------------------------------------

    def _spec(self, case: Case, work: str, n: int, queues: list[str]) -> dict[str, Any]:
        return {
            "work": work,
            "n": n,
            "queues": queues,
            "url": self.url,
            "loop": "-" if case.client.blocking else case.loop,
            "prefetch": case.prefetch,
            "window": case.window,
            "size": case.size,
            "late": case.late,
            "options": case.options,
        }

    def _command(self, client: Client, spec: dict[str, Any]) -> list[str]:
        if client.script is None:
            at = Address.of(self.url)
            numbers = [spec["n"], spec["window"], spec["prefetch"], spec["size"]]
            login = [at.host, at.port, at.user, at.password, at.vhost]
            return [str(a) for a in (self.limit, spec["work"], *numbers, spec["queues"][0], *login)]
        python = self.python if client.ours else self.peers_python
        return [str(python), str(install.PEERS / client.script), json.dumps(spec)]

    def _start(self, client: Client, spec: dict[str, Any]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command(client, spec),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=install.environment(BENCH_DATABASE=self.database or ""),
        )

    def _filled_late(self, case: Case, n: int, queues: list[str]) -> Result:
        self._template(case, queues)
        process = self._started(case, self._spec(case, "consume", n, queues))
        self._fill(case, queues, n)
        return self._result(case, process)

    def _measured(self, case: Case, spec: dict[str, Any]) -> Result:
        return self._result(case, self._start(case.client, spec))

    def _started(self, case: Case, spec: dict[str, Any]) -> subprocess.Popen[str]:
        """A process that has said that it is ready."""
        process = self._start(case.client, spec)
        assert process.stdout is not None
        if process.stdout.readline().strip() != "READY":
            process.kill()
            raise Failed(f"{case.title}: it did not start: {process.communicate()[1][-500:]}")
        return process

    @staticmethod
    def _result(case: Case, process: subprocess.Popen[str]) -> Result:
        try:
            output, problems = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Failed(f"{case.title}: no result within {PATIENCE:.0f} s") from None
        lines = output.strip().splitlines()
        if not lines or not lines[-1].startswith("{"):
            words = problems.strip().splitlines()
            raise Failed(f"{case.title}: {words[-1] if words else f'status {process.returncode}'}")
        return cast("Result", json.loads(lines[-1]))

    def _served(self, case: Case, n: int, queues: list[str]) -> Result:
        """The client's result, with what the server used meanwhile."""
        server = self._started(case, self._spec(case, "serve", n, queues))
        try:
            before = cpu_of(server.pid)
            result = self._measured(case, self._spec(case, "request", n, queues))
            served = n + result.get("warmed", 0)
            result["server_cpu_us"] = (cpu_of(server.pid) - before) / served * 1e6
            return result
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.communicate()


def cpu_of(pid: int) -> float:
    """Seconds of CPU that another process has used (its clock, as clock_getcpuclockid(3) makes it)."""
    return time.clock_gettime((~pid << 3) | 2)


def messages(work: Work, case: Case) -> int:
    """How many messages a run takes: fewer for the slow, and for the large."""
    n = int(work.n * case.client.pace)
    if case.size:
        n = min(n, MOST_BYTES // case.size)
    return max(n, FEWEST)


def interleaved(
    stage: Stage, work: Work, cases: tuple[Case, ...], rounds: int, place: Callable[[Case], str]
) -> dict[str, list[Result] | str]:
    """Every case once per round, in turns; each one's results, or why there are none."""
    found: dict[str, list[Result] | str] = {case.title: [] for case in cases}
    for turn in range(rounds):
        first = turn % len(cases)
        order = cases[first:] + cases[:first]
        for case in order:
            results = found[case.title]
            if isinstance(results, str):
                continue
            try:
                results.append(stage.run(work, case, place(case)))
            except (Skipped, Failed) as error:
                found[case.title] = str(error) if isinstance(error, Skipped) else f"failed: {error}"
    return found
