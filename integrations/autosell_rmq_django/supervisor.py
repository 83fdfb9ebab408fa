"""Several consuming processes under one parent: started, watched, started again, drained together."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from autosell_rmq_django import tether
from autosell_rmq_django.running import BEAT

logger = logging.getLogger(__name__)

FAILED_START = 1  # the exit code of a configuration that cannot work, or a broker that does not answer
CHANGED = 3  # the exit code of a process whose files have changed

_FIRST_PAUSE = 1.0  # seconds before a dead process is started again; doubled while it dies young
_LONGEST_PAUSE = 30.0
_GROWN_UP = 30.0  # seconds after which a death says nothing about the start
_KILL_AFTER = 5.0  # seconds over the drain timeout, and
_KILL_AFTER_SECOND = 1.0  # seconds after the second signal
_WELL_FOR = 3 * BEAT


@dataclass(eq=False)
class _Child:
    """A process, as the supervisor knows it."""

    number: int
    process: asyncio.subprocess.Process
    started: float
    listening: asyncio.Task[None] | None = None
    well_at: float = float("-inf")


@dataclass(kw_only=True, eq=False)
class Supervisor:
    """Runs `processes` of one command until a signal, or until all have left by themselves.

    They are subprocesses, never forks: each has imported everything itself. Each is in a process group of
    its own, so that a Ctrl-C in a terminal comes to it once, from here. When the supervisor dies, in
    whatever way, they notice it at their tether, and drain.

    Attributes:
        command: of one process; it finds its tether in the environment.
        processes: how many.
        drain_timeout: seconds that each takes for its drain, at most.
        once: a process that leaves with 0 is not started again.
        reload: a process that leaves with 3 is started again at once.
        say: tells the terminal what happens.
        on_beat: called every second while every process handles messages.
    """

    command: Sequence[str]
    processes: int
    drain_timeout: float
    once: bool = False
    reload: bool = False
    say: Callable[[str], None]
    on_beat: Callable[[], None] = lambda: None
    _children: dict[int, _Child] = field(default_factory=dict, init=False)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _signals: int = field(default=0, init=False)
    _was_ready: bool = field(default=False, init=False)
    _code: int = field(default=0, init=False)

    async def run(self) -> int:
        """Supervise; returns the exit code."""
        with self._on_signals():
            beat = asyncio.create_task(self._beat())
            try:
                async with asyncio.TaskGroup() as group:
                    for number in range(1, self.processes + 1):
                        group.create_task(self._keep(number))
            finally:
                beat.cancel()
        return self._code

    # --- one place, filled by one process after the other ------------------------------------------------

    async def _keep(self, number: int) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            child = await self._start(number)
            code = await self._watched(child)
            if self._stopping.is_set() or (self.once and code == 0):
                return
            if code == FAILED_START and not self._was_ready:
                self.say(f"process {number} could not start: giving up")
                self._stop(FAILED_START)
                return
            if code == 0 or (self.reload and code == CHANGED):
                self.say(f"process {number} has left ({_described(code)}), starting the next")
                continue
            pause = _FIRST_PAUSE if _age(child) > _GROWN_UP else pause
            wait = pause * random.uniform(0.8, 1.0)
            self.say(f"process {number} died: {_described(code)}; starting it again in {wait:.1f} s")
            logger.error(
                "consuming process %d (pid %d) died: %s", number, child.process.pid, _described(code)
            )
            await self._sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _start(self, number: int) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.set_inheritable(True)
            process = await asyncio.create_subprocess_exec(
                *self.command,
                env={**os.environ, tether.VARIABLE: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        child = _Child(number, process, asyncio.get_running_loop().time())
        self._children[number] = child
        self.say(f"process {number} of {self.processes} started, pid {process.pid}")
        child.listening = asyncio.create_task(self._listen(child, ours))  # it ends with the process
        if self._stopping.is_set():  # a signal came meanwhile, and found no process here
            _signal(process, signal.SIGTERM)
        return child

    async def _watched(self, child: _Child) -> int:
        """Wait for its end; once all are to stop, no longer than the drain may take."""
        ended = asyncio.ensure_future(child.process.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await asyncio.wait([ended], timeout=self.drain_timeout + _KILL_AFTER)
            if not ended.done():
                self.say(f"process {child.number} has not drained in time: killing it")
                _signal(child.process, signal.SIGKILL)
            return await ended
        finally:
            stopping.cancel()
            self._children.pop(child.number, None)

    async def _listen(self, child: _Child, line: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        line.setblocking(False)
        with line, suppress(ConnectionError):
            while words := await loop.sock_recv(line, 64):
                child.well_at = loop.time() if tether.WELL in words else child.well_at
                if tether.READY in words:
                    self._was_ready = True
                    self.say(f"process {child.number} is ready")

    # --- all of them -------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            late = asyncio.get_running_loop().time() - _WELL_FOR
            well = [child for child in self._children.values() if child.well_at > late]
            if len(well) == self.processes:
                self.on_beat()

    def _stop(self, code: int = 0) -> None:
        self._code = code
        self._stopping.set()
        for child in self._children.values():
            _signal(child.process, signal.SIGTERM)

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals == 1:
            name = signal.Signals(number).name
            self.say(f"{name}: {len(self._children)} processes stop gracefully, once more to leave at once")
            self._stop()
            return
        self._code = 128 + number
        for child in self._children.values():
            _signal(child.process, signal.SIGTERM)  # their second
        asyncio.get_running_loop().call_later(_KILL_AFTER_SECOND, self._kill)

    def _kill(self) -> None:
        for child in self._children.values():
            _signal(child.process, signal.SIGKILL)

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    @contextmanager
    def _on_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def _age(child: _Child) -> float:
    return asyncio.get_running_loop().time() - child.started


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)


def _described(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
