"""What every peer shares: the work it is told to do, the measured section, one line of JSON at the end.

A peer is a script that is started as ``python PEER.py '{"work": "consume", "n": 20000, …}'`` and calls `main`
with its functions, by the name of the work. Each function gets a `Run`, calls `Run.start` right before the
measured section and `Run.stop` right after it. Only the standard library is imported here.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

WARM_UP = 100  # calls of a window before its measured ones
PAYLOAD = {"user_id": 123, "text": "Привет, мир!", "items": list(range(1, 11))}


def payload(size: int) -> dict[str, Any]:
    """The usual payload (127 bytes as JSON), or one whose JSON takes `size` bytes."""
    return {"text": "x" * (size - len('{"text": ""}'))} if size else PAYLOAD


@dataclass(slots=True)
class Run:
    """One work to do, and what was measured of it.

    Attributes:
        work: ``publish``, ``consume``, ``serve``, ``request``, or one of a peer's own.
        n: messages.
        queues: where they go; all but one work have a single one.
        late: the messages come when the consumers are there; the clock runs from the first one.
        window: publishes or requests in flight at once.
        latencies: of each call, in seconds, where the peer can tell them.
        warmed: calls before the measured section.
    """

    work: str
    n: int
    queues: list[str]
    url: str
    loop: str = "asyncio"
    late: bool = False
    prefetch: int = 500
    window: int = 256
    size: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    warmed: int = 0
    _began: tuple[float, float] = (0.0, 0.0)
    _ended: tuple[float, float] | None = None

    @property
    def queue(self) -> str:
        return self.queues[0]

    def start(self) -> None:
        """Begin the measured section."""
        gc.collect()
        self._began = _cpu(), time.perf_counter()

    def stop(self) -> None:
        """End it; a second call changes nothing."""
        self._ended = self._ended or (_cpu(), time.perf_counter())

    def report(self) -> None:
        """Print what was measured."""
        assert self._ended is not None, "the peer never stopped its clock"
        (cpu0, wall0), (cpu1, wall1) = self._began, self._ended
        result: dict[str, Any] = {
            "n": self.n,
            "rate": self.n / (wall1 - wall0),
            "cpu_us": (cpu1 - cpu0) / self.n * 1e6,
            "wall_us": (wall1 - wall0) / self.n * 1e6,
            "rss_mb": _memory("VmHWM"),
            "warmed": self.warmed,
        }
        if self.latencies:
            ordered = sorted(self.latencies)
            result["p50_us"] = ordered[len(ordered) // 2] * 1e6
            result["p99_us"] = ordered[int(len(ordered) * 0.99)] * 1e6
        print(json.dumps(result), flush=True)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory(field_: str) -> float:
    """A field of this process's status in megabytes; the most it ever took where there is no /proc."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(field_)) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


async def windowed(run: Run, call: Callable[[], Awaitable[object]]) -> None:
    """Warm up, then do `run.n` calls, `run.window` of them in flight, and measure that."""
    run.warmed = WARM_UP
    await _in_flight(WARM_UP, min(run.window, WARM_UP), call, [])
    run.start()
    await _in_flight(run.n, run.window, call, run.latencies)
    run.stop()


async def _in_flight(
    n: int, window: int, call: Callable[[], Awaitable[object]], latencies: list[float]
) -> None:
    left = iter(range(n))
    clock = time.perf_counter

    async def worker() -> None:
        for _ in left:
            began = clock()
            await call()
            latencies.append(clock() - began)

    await asyncio.gather(*(worker() for _ in range(window)))


def sequential(run: Run, call: Callable[[], object]) -> None:
    """The same for a client that blocks: one call after the other."""
    run.warmed = WARM_UP
    for _ in range(WARM_UP):
        call()
    clock = time.perf_counter
    run.start()
    for _ in range(run.n):
        began = clock()
        call()
        run.latencies.append(clock() - began)
    run.stop()


class Countdown:
    """Counts what handlers handle, and runs the clock meanwhile."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._left = run.n
        self._done = asyncio.Event()

    def one(self) -> None:
        """Count a message."""
        if self._left == self._run.n and self._run.late:
            self._run.start()
        self._left -= 1
        if self._left == 0:  # one turn of the loop later the last ack is out
            asyncio.get_running_loop().call_soon(self._done.set)

    async def over(self, subscribe: Callable[[], Awaitable[object]]) -> None:
        """Start the consumers, and return when all messages were handled."""
        if self._run.late:
            await subscribe()
            ready()
        else:
            self._run.start()
            await subscribe()
        await self._done.wait()
        self._run.stop()


async def serve() -> None:
    """Tell the runner that the peer serves, and do so until it is told to end."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    ready()
    await ended.wait()


def ready() -> None:
    """The line that the runner waits for."""
    print("READY", flush=True)


def told() -> Run:
    """The run that this process was started for."""
    return Run(**json.loads(sys.argv[1]))


def main(works: dict[str, Callable[[Run], Any]], run: Run | None = None) -> None:
    """Do the work, print the result, and leave without waiting for anybody."""
    warnings.simplefilter("ignore")
    run = run or told()
    work = works[run.work]
    if run.loop == "-":
        work(run)
    else:
        with asyncio.Runner(loop_factory=_loop_factory(run.loop)) as runner:
            runner.run(work(run))
    if run.work != "serve":
        run.report()
    sys.stdout.flush()
    os._exit(0)


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name != "uvloop":
        return None
    import uvloop

    return uvloop.new_event_loop
