"""``--processes`` and ``--reload``: supervised processes die, are replaced, drain, and leave no orphan."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.processes import Running
from tests.django import settings
from tests.django.command_fixtures import Shop, alive, is_gone, kill, pids, shop
from tests.support.waiting import eventually

__all__ = ["shop"]

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.rabbitmq,
    pytest.mark.timeout(120),
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(settings.KIND != "sqlite", reason="has nothing to do with the database"),
]


async def both_ready(process: Running) -> list[int]:
    await process.until("is ready", times=2)
    return pids(process)


async def all_gone(process: Running) -> None:
    for pid in pids(process):
        await is_gone(pid)


async def test_two_processes_share_the_work_and_drain_together(shop: Shop, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with shop.consuming("--processes", "2", "--prefetch", "2") as process:
        first, second = await both_ready(process)
        # A Ctrl-C in a terminal comes to a whole group: to them once, from the supervisor.
        assert len({os.getpgid(pid) for pid in (first, second, process.process.pid)}) == 3
        for key in "abcd":
            await shop.send("gate", key=key, file=str(gate))
        await process.until("begun", times=4)
        process.signal(signal.SIGTERM)
        await process.until("draining", times=2)
        gate.touch()
        assert await process.exit_code() == 0

    assert "2 processes" in process.output
    assert "SIGTERM: 2 processes stop gracefully" in process.output
    await shop.has_effects(*"abcd")
    await all_gone(process)


async def test_a_killed_process_is_replaced_and_nothing_is_lost(shop: Shop, tmp_path: Path) -> None:
    gate, lease = tmp_path / "gate", {"IDEMPOTENCY": {"LEASE": 1}}  # the dead one's claims live as long
    async with shop.consuming("--processes", "2", "--prefetch", "2", setting=lease) as process:
        first, _ = await both_ready(process)
        for key in "abcd":
            await shop.send("gate", key=key, file=str(gate))
        await process.until("begun", times=4)
        kill(first, signal.SIGKILL)
        await process.until("died: killed by SIGKILL; starting it again in ")
        gate.touch()
        await process.until("is ready", times=3)
        await shop.has_effects(*"abcd")
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0

    await all_gone(process)


async def test_one_that_keeps_dying_is_started_less_often(shop: Shop) -> None:
    async with shop.consuming("--processes", "2") as process:
        await both_ready(process)
        for times in (1, 2, 3):
            kill(pids(process)[-1], signal.SIGKILL)
            await process.until("starting it again in", times=times)
            await process.until("is ready", times=2 + times)

    waits = [float(line.split()[-2]) for line in process.lines if "starting it again in" in line]
    assert waits[0] <= 1.0
    assert max(waits) > 1.2


async def test_one_that_cannot_be_stopped_is_killed(shop: Shop) -> None:
    async with shop.consuming("--processes", "2", "--drain-timeout", "0.2") as process:
        first, second = await both_ready(process)
        kill(first, signal.SIGSTOP)
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0

    assert "has not drained in time: killing it" in process.output
    assert not alive(first)
    assert not alive(second)


async def test_the_second_signal_leaves_at_once(shop: Shop, tmp_path: Path) -> None:
    async with shop.consuming("--processes", "2") as process:
        await both_ready(process)
        await shop.send("gate", key="a", file=str(tmp_path / "never"))
        await process.until("begun")
        process.signal(signal.SIGINT)
        await process.until("draining")
        process.signal(signal.SIGINT)
        assert await process.exit_code() == 130

    await all_gone(process)
    assert await shop.effects() == []
    await shop.place.has(shop.queue("gate"), 1)


async def test_the_second_signal_does_not_wait_for_a_stopped_process(shop: Shop) -> None:
    async with shop.consuming("--processes", "2") as process:
        first, _ = await both_ready(process)
        kill(first, signal.SIGSTOP)
        process.signal(signal.SIGTERM)
        await process.until("stop gracefully")
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 143

    await all_gone(process)


async def test_processes_without_their_supervisor_drain(shop: Shop, tmp_path: Path) -> None:
    """Whatever kills it: what runs finishes, and nobody is left behind."""
    gate = tmp_path / "gate"
    async with shop.consuming("--processes", "2", "--prefetch", "1") as process:
        await both_ready(process)
        await shop.send("gate", key="a", file=str(gate))
        await process.until("begun")
        process.signal(signal.SIGKILL)
        await process.until("draining")
        gate.touch()
        assert await process.exit_code() == -signal.SIGKILL

    await all_gone(process)
    await shop.has_effects("a")


async def test_a_start_that_fails_ends_with_1(shop: Shop) -> None:
    setting = {"URL": "amqp://shop:secret@127.0.0.1:1/", "STARTUP_TIMEOUT": 0.2}
    async with shop.manage("rmq_consume", "--processes", "2", setting=setting) as process:
        assert await process.exit_code() == 1

    assert "could not start: giving up" in process.output
    await all_gone(process)


async def test_batch_ends_when_all_have_left(shop: Shop) -> None:
    await shop.declared()
    keys = [f"k{number:02}" for number in range(20)]
    for key in keys:
        await shop.send("sync", key=key)

    async with shop.manage("rmq_consume", "--processes", "2", "--batch") as process:
        assert await process.exit_code() == 0

    assert await shop.effects() == keys


async def test_one_that_has_had_its_messages_is_replaced(shop: Shop) -> None:
    async with shop.consuming("--processes", "2", "--max-messages", "3", "--prefetch", "1") as process:
        await both_ready(process)
        keys = [f"k{number:02}" for number in range(20)]
        for key in keys:
            await shop.send("sync", key=key)
        await shop.has_effects(*keys)
        await process.until("has left (exit code 0), starting the next")
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0

    assert "died" not in process.output


async def test_the_health_file_needs_every_process(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "health"
    async with shop.consuming("--processes", "2", "--health-file", file) as process:
        first, _ = await both_ready(process)
        await eventually(file.exists, within=30)
        kill(first, signal.SIGSTOP)

        stamps: list[int] = []

        def stands_still() -> bool:
            stamps.append(file.stat().st_mtime_ns)
            return len(stamps) > 300 and len(set(stamps[-250:])) == 1  # for 2.5 seconds

        await eventually(stands_still, within=30)
        kill(first, signal.SIGCONT)
        await eventually(lambda: file.stat().st_mtime_ns > stamps[-1], within=30)
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0

    assert not file.exists()


# --- reload ------------------------------------------------------------------------------------------


@pytest.fixture
def change(shop: Shop, tmp_path: Path) -> Callable[[], object]:
    """Changes a module that the shop imports."""
    file = tmp_path / "changing.py"
    file.touch()
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    shop.environment |= {"PYTHONPATH": path, "RMQ_TEST_IMPORT": "changing"}
    return partial(file.write_text, "# changed")


async def test_a_changed_file_drains_and_restarts(
    shop: Shop, tmp_path: Path, change: Callable[[], object]
) -> None:
    gate = tmp_path / "gate"
    async with shop.consuming(debug=True) as process:
        await shop.send("gate", key="a", file=str(gate))
        await process.until("begun")
        change()
        await process.until("draining")
        gate.touch()
        await process.until("has left (exit code 3), starting the next")
        await process.until("is ready", times=2)
        await shop.has_effects("a")
        await shop.send("sync", key="b")
        await shop.has_effects("a", "b")
        process.signal(signal.SIGINT)
        assert await process.exit_code() == 0

    assert "restarted when a file changes" in process.output
    assert len(pids(process)) == 2
    await all_gone(process)


async def test_debug_can_do_without(shop: Shop) -> None:
    async with shop.manage("rmq_consume", "--no-reload", debug=True) as process:
        await process.until("ready; quit")
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0

    assert pids(process) == []


async def test_reload_with_several_processes(shop: Shop, change: Callable[[], object]) -> None:
    async with shop.consuming("--processes", "2", "--reload") as process:
        await both_ready(process)
        change()
        await process.until("is ready", times=4)
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0

    await all_gone(process)


async def test_the_second_signal_leaves_a_reloading_process_too(shop: Shop, tmp_path: Path) -> None:
    async with shop.consuming(debug=True) as process:
        await shop.send("gate", key="a", file=str(tmp_path / "never"))
        await process.until("begun")
        process.signal(signal.SIGINT)
        await process.until("draining")
        process.signal(signal.SIGINT)
        assert await process.exit_code() == 130

    await all_gone(process)
