"""``manage.py rmq_consume`` in one process: start, drain, limits, exit codes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.django import settings
from tests.django.command_fixtures import Shop, shop
from tests.support.waiting import eventually

__all__ = ["shop"]

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.rabbitmq,
    pytest.mark.timeout(90),
    pytest.mark.django_db(transaction=True),
]
# What has nothing to do with the database is tried with one of them.
once = pytest.mark.skipif(settings.KIND != "sqlite", reason="tried with SQLite")


async def test_it_handles_messages_and_says_what_it_consumes(shop: Shop) -> None:
    async with shop.consuming() as process:
        await shop.send("sync", key="a")
        await shop.send("async", key="b")
        await shop.has_effects("a", "b")
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0

    assert "consumes from amqp://guest:***@" in process.lines[0]
    assert f"  {shop.queue('sync')}: tests.django.shop.rmq.effect (sync, prefetch 20," in process.output
    assert f"dlq {shop.queue('async')}_dlq" in process.output
    assert "threads for sync handlers, 1 process" in process.output
    assert "guest:guest" not in process.transcript


async def test_a_duplicate_has_no_second_effect(shop: Shop) -> None:
    async with shop.consuming("--batch"):
        for _ in range(3):
            await shop.send("sync", key="a")
            await shop.send("async", key="b")
        await shop.has_effects("a", "b")
    async with shop.consuming("--batch") as process:
        await shop.send("sync", key="a")
        assert await process.exit_code() == 0
        assert await shop.effects() == ["a", "b"]


@once
async def test_queues_can_be_chosen(shop: Shop) -> None:
    async with shop.consuming(
        shop.queue("sync"), shop.queue("gate"), "--exclude", shop.queue("gate")
    ) as process:
        assert await shop.place.consumers(shop.queue("sync")) == 1
        assert await shop.place.consumers(shop.queue("gate")) == 0

    assert shop.queue("async") not in process.output


@once
async def test_prefetch_wins_over_everything(shop: Shop) -> None:
    setting = {"PREFETCH": 50, "QUEUES": {shop.queue("sync"): {"PREFETCH": 7}}}
    async with shop.consuming("--prefetch", "3", setting=setting) as process:
        assert process.output.count("prefetch 3,") == 5
    async with shop.consuming(setting=setting) as process:
        assert process.output.count("prefetch 7,") == 1
        assert process.output.count("prefetch 50,") == 4


@once
async def test_threads_bound_sync_handlers_whatever_the_prefetch(shop: Shop, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    keys = [f"k{number}" for number in range(6)]
    async with shop.consuming("--prefetch", "6", setting={"THREADS": 2}) as process:
        for key in keys:
            await shop.send("gate", key=key, file=str(gate))
        await process.until("begun", times=2)
        await shop.send("async", key="async")  # no thread is free, and it needs none
        await shop.has_effects("async")
        assert process.output.count("begun") == 2
        gate.touch()
        await shop.has_effects("async", *keys)


# --- leaving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_drains(shop: Shop, tmp_path: Path, number: signal.Signals) -> None:
    """What runs finishes; what has not begun goes back."""
    gate = tmp_path / "gate"
    async with shop.consuming("--prefetch", "2", setting={"THREADS": 2}) as process:
        for key in "abcd":
            await shop.send("gate", key=key, file=str(gate))
        await process.until("begun", times=2)
        process.signal(number)
        await process.until("draining: 2 messages in hand")
        gate.touch()
        assert await process.exit_code() == 0

    begun = [line.removeprefix("begun ") for line in process.lines if line.startswith("begun")]
    assert len(begun) == 2
    await shop.has_effects(*begun)
    await shop.place.has(shop.queue("gate"), 2)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_the_second_signal_leaves_at_once(
    shop: Shop, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    async with shop.consuming() as process:
        await shop.send("gate", key="a", file=str(tmp_path / "never"))
        await process.until("begun")
        process.signal(number)
        await process.until("stopping gracefully")
        process.signal(number)
        assert await process.exit_code() == code

    assert await shop.effects() == []
    await shop.place.has(shop.queue("gate"), 1)


@once
async def test_the_drain_has_an_end(shop: Shop, tmp_path: Path) -> None:
    """A handler that does not return is left behind, and its message goes back."""
    async with shop.consuming("--drain-timeout", "0.2") as process:
        await shop.send("gate", key="a", file=str(tmp_path / "never"))
        await process.until("begun")
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0

    await shop.place.has(shop.queue("gate"), 1)


@once
@pytest.mark.parametrize("thread", ["to_thread", "sync_to_async"])
async def test_a_thread_that_hangs_does_not_keep_the_process(shop: Shop, thread: str) -> None:
    async with shop.consuming("--drain-timeout", "0.2") as process:
        await shop.send("hang", key=thread)
        await process.until("begun")
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0
        assert time.monotonic() - began < 12

    assert "leaving although threads still run" in process.error_output
    await shop.place.has(shop.queue("hang"), 1)


async def test_batch_leaves_when_the_queues_are_empty(shop: Shop) -> None:
    await shop.declared()
    keys = [f"k{number:02}" for number in range(30)]
    for key in keys:
        await shop.send("sync", key=key)

    async with shop.manage("rmq_consume", "--batch", "--prefetch", "3") as process:
        assert await process.exit_code() == 0

    assert await shop.effects() == keys
    assert await shop.place.depth(shop.queue("sync")) == 0


@once
async def test_batch_waits_for_what_runs(shop: Shop, tmp_path: Path) -> None:
    await shop.declared()
    await shop.send("gate", key="a", file=str(tmp_path / "gate"))

    file, beats = tmp_path / "health", set[int]()
    arguments = ("--batch", "--drain-timeout", "0.2", "--health-file", file)  # a stop would not wait for it
    async with shop.manage("rmq_consume", *arguments) as process:
        await process.until("begun")

        def looked_several_times() -> bool:
            beats.update([file.stat().st_mtime_ns] if file.exists() else [])
            return len(beats) == 3

        await eventually(looked_several_times)
        (tmp_path / "gate").touch()
        assert await process.exit_code() == 0

    assert await shop.effects() == ["a"]


@pytest.mark.parametrize("by_setting", [False, True])
@once
async def test_max_messages(shop: Shop, by_setting: bool) -> None:
    await shop.declared()
    for number in range(20):
        await shop.send("sync", key=f"k{number:02}")

    setting = {"MAX_MESSAGES": 5} if by_setting else None
    option = [] if by_setting else ["--max-messages", "5"]
    async with shop.manage("rmq_consume", "--prefetch", "1", *option, setting=setting) as process:
        assert await process.exit_code() == 0

    handled = len(await shop.effects())
    assert 5 <= handled <= 8  # one more of each queue may have begun
    await shop.place.has(shop.queue("sync"), 20 - handled)


# --- the health file -----------------------------------------------------------------------------------


@once
async def test_the_health_file_is_there_while_messages_are_handled(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "health"
    file.touch()
    os.utime(file, (1, 1))
    async with shop.consuming("--health-file", file) as process:
        await eventually(file.exists)
        first = file.stat().st_mtime_ns
        await eventually(lambda: file.stat().st_mtime_ns > first)
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0

    assert not file.exists()


@once
async def test_a_health_file_that_cannot_be_written(shop: Shop, tmp_path: Path) -> None:
    async with shop.manage("rmq_consume", setting={"HEALTH_FILE": str(tmp_path / "no" / "such")}) as process:
        assert await process.exit_code() == 1

    assert "cannot be written: No such file or directory" in process.error_output


# --- exit codes ----------------------------------------------------------------------------------------


@once
async def test_a_lost_queue_ends_with_3(shop: Shop) -> None:
    async with shop.consuming(setting={"RECONNECT_TIMEOUT": 0.2}) as process:  # over before the first attempt
        assert shop.place.connection is not None
        channel = await shop.place.connection.channel()
        await channel.queue_delete(shop.queue("sync"))
        assert await process.exit_code() == 3

    assert "rmq_consume: lost: " in process.error_output


@once
async def test_no_broker_at_the_start_ends_with_1(shop: Shop) -> None:
    setting = {"URL": "amqp://shop:secret@127.0.0.1:1/", "STARTUP_TIMEOUT": 0.2}
    async with shop.manage("rmq_consume", setting=setting) as process:
        assert await process.exit_code() == 1

    assert "127.0.0.1:1" in process.error_output
    assert "secret" not in process.transcript
    assert "Traceback" not in process.transcript


@once
async def test_wrong_settings_end_with_1(shop: Shop) -> None:
    async with shop.manage("rmq_consume", setting={"PREFETCH": 0, "PREFETCHES": 1}) as process:
        assert await process.exit_code() == 1

    assert 'AUTOSELL_RMQ["PREFETCH"]: (autosell_rmq.E003) is 0' in process.error_output
    assert 'AUTOSELL_RMQ["PREFETCHES"]: (autosell_rmq.E002)' in process.error_output


@once
async def test_they_do_so_without_checks_too(shop: Shop) -> None:
    async with shop.manage("rmq_consume", "--skip-checks", setting={"PREFETCH": 0}) as process:
        assert await process.exit_code() == 1

    assert "The setting AUTOSELL_RMQ cannot be used" in process.error_output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prefetch", "0"], "--prefetch: 0: expected a whole number >= 1"),
        (["--processes", "x"], "argument --processes"),
        (["--drain-timeout", "0"], "--drain-timeout: 0: expected a number of seconds > 0"),
        (["--drain-timeout", "nan"], "--drain-timeout: nan"),
    ],
)
@once
async def test_a_wrong_option(shop: Shop, arguments: list[str], says: str) -> None:
    async with shop.manage("rmq_consume", *arguments) as process:
        assert await process.exit_code() == 2  # as any command of Django

    assert says in process.error_output


@once
async def test_a_queue_without_a_handler(shop: Shop) -> None:
    async with shop.manage("rmq_consume", shop.queue("synk")) as process:
        assert await process.exit_code() == 1

    says = f"no handler for queue '{shop.queue('synk')}': did you mean '{shop.queue('sync')}'?"
    assert says in process.error_output


@once
async def test_several_processes_with_results_in_memory(shop: Shop) -> None:
    memory = {"IDEMPOTENCY": {"STORE": "autosell_rmq.MemoryStore"}}
    async with shop.manage("rmq_consume", "--processes", "2", setting=memory) as process:
        assert await process.exit_code() == 1
    assert "2 processes would each remember only their own messages" in process.error_output

    async with shop.manage("rmq_consume", setting={"PROCESSES": 2, **memory}) as process:
        assert await process.exit_code() == 1
    assert "(autosell_rmq.E007)" in process.error_output


@once
async def test_unapplied_migrations(shop: Shop) -> None:
    shop.environment["RMQ_TEST_RUN"] = f"{os.getpid()}_empty"
    async with shop.manage("rmq_consume") as process:
        assert await process.exit_code() == 1
    assert "the database 'default' has" in process.error_output
    assert "unapplied migrations (" in process.error_output
    assert "run manage.py migrate" in process.error_output

    async with shop.manage("migrate", "-v0") as process:
        assert await process.exit_code() == 0
    async with shop.manage("rmq_consume", setting={"IDEMPOTENCY": {"DATABASE": "other"}}) as process:
        assert await process.exit_code() == 1
    assert "the database 'other' has" in process.error_output
    assert "autosell_rmq.0001_initial" in process.error_output
    assert "run manage.py migrate --database other" in process.error_output

    for alias in ("default", "other"):
        for file in Path(settings.DATABASES[alias]["NAME"]).parent.glob(f"*_{alias}_{os.getpid()}_empty*"):
            file.unlink()


async def test_no_database_at_the_start(shop: Shop) -> None:
    if settings.KIND == "sqlite":
        pytest.skip("SQLite has no server")
    shop.environment[f"{settings.KIND.upper()}_URL"] = f"{settings.KIND}://root@127.0.0.1:1"
    async with shop.manage("rmq_consume") as process:
        assert await process.exit_code() == 1

    assert "the database 'default' does not answer" in process.error_output
