"""Handlers that fail: so many runs, one dead letter, one answer, and nobody else has to wait."""

import datetime as dt
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from autosell_rmq import Message, Reject, RetryLater, StoreUnavailable
from autosell_rmq.codec import restore
from autosell_rmq.idempotency import MemoryStore
from autosell_rmq.message import Headers, Properties
from autosell_rmq.testing import Faults, FaultyStore
from tests.integration.bad_input_fixtures import BROKERS, Recorder, Serve, serving
from tests.support.publications import send, to


@pytest.fixture(params=BROKERS)
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    async with serving(request.param) as serve:
        yield serve


@pytest.mark.parametrize("max_retries", [0, 1, 3])
async def test_a_handler_that_always_fails_runs_once_more_than_its_retries_and_ends_in_one_letter(
    serve: Serve, max_retries: int
) -> None:
    recorder = Recorder(ValueError("нет такого заказа"))
    service = await serve(recorder, max_retries=max_retries, retry_delay=0.5)

    cid = await service.send(b'{"order": 1}', message_id="m-1", headers={"tenant": "kz"})

    reply = await service.reply()
    code = "max_retries_exceeded" if max_retries else "unhandled_exception"
    assert reply == {
        "success": False,
        "data": None,
        "error": "ValueError: нет такого заказа",
        "error_code": code,
        "correlation_id": cid,
    }
    letter = await service.letter()
    record = json.loads(letter.body)
    assert [message.attempt for message in recorder.messages] == list(range(1, max_retries + 2))
    assert record["original_body"] == '{"order": 1}'
    assert record["reason"] == (
        "Превышено максимальное количество попыток: Ошибка обработки сообщения: нет такого заказа"
        if max_retries
        else "Необработанное исключение в обработчике: нет такого заказа"
    )
    assert dt.datetime.fromisoformat(record["failed_at"]).tzinfo is not None
    assert (record["correlation_id"], record["original_queue"]) == (cid, service.queue)
    assert (record["reason_code"], record["attempts"]) == (code, max_retries + 1)
    assert (record["error_type"], record["message_id"]) == ("ValueError", "m-1")
    assert letter.headers["x-death-reason"] == record["reason"]
    assert restore(letter.body).properties.headers["tenant"] == "kz"
    assert await service.leftovers() == (0, 0)
    assert service.app.statistics.dead_lettered == service.app.statistics.replies == 1


@pytest.mark.parametrize(
    ("error", "runs", "code"),
    [
        (Reject("not ours"), 1, "rejected"),
        (RetryLater("not yet", delay=0.1), 2, "max_retries_exceeded"),
        (KeyError("key"), 2, "max_retries_exceeded"),
        (TimeoutError(), 2, "max_retries_exceeded"),
        (RecursionError("deep"), 2, "max_retries_exceeded"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 2, "max_retries_exceeded"),
        (ExceptionGroup("many", [ValueError("1"), KeyError("2")]), 2, "max_retries_exceeded"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_every_error_has_its_number_of_runs_and_its_reason(
    serve: Serve, error: BaseException, runs: int, code: str
) -> None:
    recorder = Recorder(error)
    service = await serve(recorder, max_retries=1, retry_delay=0.1)

    await service.send()

    assert (await service.reply())["error_code"] == code
    assert (await service.dead()).reason_code == code
    assert recorder.runs == runs
    assert await service.leftovers() == (0, 0)


@pytest.mark.parametrize("result", [object(), {"a": float("nan")}, {1, 2, object()}, b"\xff"], ids=repr)
async def test_a_result_that_is_no_json_is_dead_lettered_after_its_one_run(
    serve: Serve, result: object
) -> None:
    runs = 0

    async def handler(payload: object) -> object:
        nonlocal runs
        runs += 1
        return result

    service = await serve(handler, retry_delay=0.5)

    await service.send(b"1")

    reply = await service.reply()
    assert (reply["success"], reply["error_code"]) == (False, "unhandled_exception")
    assert "cannot be written as JSON" in (await service.dead()).reason
    assert runs == 1
    assert await service.leftovers() == (0, 0)


async def test_a_message_that_waits_longer_does_not_hold_up_the_ones_behind_it(serve: Serve) -> None:
    order: list[tuple[object, int]] = []

    async def handler(delay: float, message: Message) -> None:
        order.append((delay, message.attempt))
        if message.attempt == 1:
            raise RetryLater("later", delay=delay)

    service = await serve(handler, max_retries=1)

    for delay in (4, 2, 1):
        await service.send(json.dumps(delay).encode())
    for _ in range(3):
        assert (await service.reply())["success"]

    assert order[:3] == [(4, 1), (2, 1), (1, 1)]
    assert order[3:] == [(1, 2), (2, 2), (4, 2)]


# --- what an error says ----------------------------------------------------------------------------


async def test_an_error_text_of_10_mb_is_cut_everywhere(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    service = await serve(Recorder(ValueError("y" * 10_000_000)), max_retries=1, retry_delay=0.1)

    await service.send()

    reply = await service.reply()
    letter = await service.letter()
    assert len(reply["error"]) <= 8192
    assert len(restore(letter.body).reason) <= 8192
    assert len(letter.body) < 40_000
    assert len(str(letter.headers["x-death-reason"])) <= 1000
    assert await service.leftovers() == (0, 0)
    assert max(len(record.getMessage()) for record in caplog.records) < 2_000


async def test_an_error_text_of_10_mb_is_cut_in_the_log_as_well(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    service = await serve(Recorder(ValueError("y" * 10_000_000)), max_retries=0)

    await service.send()
    await service.letter()

    assert len(caplog.text) < 100_000


async def test_an_error_that_cannot_be_printed_is_a_failure_like_any(serve: Serve) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    service = await serve(Recorder(Broken()), max_retries=1, retry_delay=0.1)

    await service.send()

    assert (await service.reply())["error"] == "Broken"
    assert (await service.dead()).reason.endswith(": Broken")


# --- what comes out of the DLQ ---------------------------------------------------------------------


async def test_a_body_of_any_bytes_is_restored_with_its_properties_and_headers(serve: Serve) -> None:
    service = await serve(Recorder())
    body = bytes(range(256)) * 4
    headers: dict[str, Any] = {
        "text": "значение",
        "bytes": b"\x00\xff",
        "when": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        "nested": {"list": [1, -2.5, None, True, {"bytes": b"\xfe"}]},
        "$base64": "not a tag",
        "tagged": {"$base64": "AAA=", "more": 1},
    }
    sent = Properties(
        content_type="application/octet-stream",
        content_encoding="zstd",
        headers=headers,
        persistent=False,
        priority=5,
        correlation_id="c-1",
        reply_to="nobody.waits.here",
        message_id="m-1",
        timestamp=dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        type="order.created",
        app_id="foreign",
    )
    await send(service.outside, to(service.queue, body, sent))

    envelope = await service.dead()

    assert envelope.body == body
    assert without_count(envelope.properties.headers) == headers
    for name in ("content_type", "content_encoding", "persistent", "priority", "correlation_id", "reply_to"):
        assert getattr(envelope.properties, name) == getattr(sent, name), name
    for name in ("message_id", "timestamp", "type", "app_id"):
        assert getattr(envelope.properties, name) == getattr(sent, name), name


async def test_a_header_that_looks_like_a_tag_is_restored_as_it_was(serve: Serve) -> None:
    service = await serve(Recorder())
    headers = {"a": {"$base64": "AAA="}, "b": {"$datetime": "yesterday"}, "c": {"$text": "1"}}

    await service.send(b"no json", headers=headers)

    assert without_count((await service.dead()).properties.headers) == headers


def without_count(headers: Headers) -> dict[str, object]:
    """The sender's headers; newer brokers put their count on a quorum queue's messages at once."""
    return {name: value for name, value in headers.items() if name != "x-delivery-count"}


# --- the store ------------------------------------------------------------------------------------


async def test_while_the_store_is_away_messages_wait_without_a_run_or_an_attempt(serve: Serve) -> None:
    faults = Faults()
    recorder = Recorder()
    service = await serve(recorder, store=FaultyStore(MemoryStore(), faults), max_retries=1, prefetch=5)
    faults.on("run_once", before=StoreUnavailable("away"), times=10)

    sent = {await service.send(str(n).encode()) for n in range(10)}

    assert {(await service.reply())["correlation_id"] for _ in sent} == sent
    assert sorted(map(str, recorder.payloads)) == sorted(map(str, range(10)))
    assert {message.attempt for message in recorder.messages} == {1}
    assert service.app.statistics.dead_lettered == 0
    assert faults.passed.count("run_once:before") <= 30
    assert await service.leftovers() == (0, 0)


async def test_the_pace_while_the_store_is_away_is_a_second_at_least(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    faults = Faults()
    service = await serve(Recorder(), store=FaultyStore(MemoryStore(), faults))
    faults.on("run_once", before=StoreUnavailable("away"), times=3)

    started = service.outside.now()
    await service.send(b"1")
    assert (await service.reply())["data"] == 1

    assert service.outside.now() - started >= 1 + 2  # the first waits were 1, 2 and 4 seconds
    assert sum("does not answer" in record.getMessage() for record in caplog.records) == 3
