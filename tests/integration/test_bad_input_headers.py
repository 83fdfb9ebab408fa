"""Headers are anybody's word: too many, too large, forged. They are clamped or ignored, and harm nobody."""

import datetime as dt
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from autosell_rmq import EncodeError
from autosell_rmq.codec import restore
from tests.integration.bad_input_fixtures import BROKERS, Recorder, Serve, publish_by_pika, serving

FORGED: list[object] = [
    10**12,
    -5,
    2**63 - 1,
    -(2**63),
    True,
    1.5,
    "NaN",
    "-5",
    "1000000000000",
    "9" * 5000,
    "",
    "²",
    "٣",
    b"\xff",
    None,
    Decimal("1E+5"),
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    [1, [2]],
    {"a": {"b": [1]}},
]
COUNTERS = ["x-retry-count", "x-autosell-attempt", "x-autosell-busy", "x-delivery-count", "x-acquired-count"]
DEATHS = [
    [{"count": 10**12, "reason": "expired", "queue": "q", "exchange": "", "routing-keys": ["q"]}],
    [{"count": -5, "reason": "rejected"}, {"count": "NaN"}, {}],
    [{"count": {"nested": 1}}, "no table", 5, None],
    "no list",
    {"count": 1},
    [],
]


@pytest.fixture(params=BROKERS)
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    async with serving(request.param) as serve:
        yield serve


# --- forged ----------------------------------------------------------------------------------------


async def test_forged_counters_neither_end_a_message_early_nor_keep_it_for_ever(serve: Serve) -> None:
    recorder = Recorder(ValueError("no"))
    service = await serve(recorder, max_retries=1, retry_delay=0.5, prefetch=200)
    forged = [{name: value} for name in COUNTERS for value in FORGED]
    forged += [{"x-death": value} for value in DEATHS]
    sent = {await service.send(headers=headers): headers for headers in forged}

    letters = [await service.dead() for _ in sent]

    assert {letter.properties.correlation_id for letter in letters} == set(sent)
    assert {letter.reason_code for letter in letters} == {"max_retries_exceeded"}
    for cid, headers in sent.items():
        attempts = [message.attempt for message in recorder.messages if message.correlation_id == cid]
        assert attempts in ([1, 2], [2]), headers
    assert await service.leftovers() == (0, 0)


async def test_an_attempt_that_is_told_is_believed_up_to_the_last_one(serve: Serve) -> None:
    """A message may come back from another consumer with its count; a forged one still gets its run."""
    recorder = Recorder(ValueError("no"))
    service = await serve(recorder, max_retries=3, retry_delay=0.5)

    await service.send(headers={"x-retry-count": 2})
    await service.send(headers={"x-retry-count": 99})
    letters = [await service.dead(), await service.dead()]

    assert sorted(message.attempt for message in recorder.messages) == [3, 4, 4]
    assert {letter.reason_code for letter in letters} == {"max_retries_exceeded"}


@pytest.mark.parametrize("value", [20, 10**12, "99"])
async def test_a_forged_delivery_count_does_not_end_a_message_without_a_run(
    serve: Serve, value: object
) -> None:
    service = await serve(Recorder())

    await service.send(b"1", headers={"x-autosell-deliveries": value})

    assert (await service.reply()).get("data") == 1


@pytest.mark.parametrize("value", [value for value in FORGED if value not in (10**12, 2**63 - 1)], ids=repr)
async def test_forged_times_are_ignored_where_they_are_no_times(serve: Serve, value: object) -> None:
    recorder = Recorder()
    service = await serve(recorder)
    deadline = value if value not in (True, "1000000000000") else -5  # those are times, long ago

    await service.send(b"1", headers={"x-autosell-due": value, "x-autosell-deadline": deadline})

    assert (await service.reply())["data"] == 1
    assert recorder.messages[0].due is not None
    assert recorder.messages[0].deadline is not None


async def test_forged_first_addresses_reach_nothing_but_the_record(serve: Serve) -> None:
    recorder = Recorder(ValueError("no"))
    service = await serve(recorder, max_retries=0)
    values: list[object] = ["", "amq.topic", "x" * 3000, 5, [1], {"a": 1}, None]

    for value in values:
        await service.send(headers={"x-autosell-exchange": value, "x-autosell-routing-key": value})
    letters = [await service.dead() for _ in values]

    assert {letter.reason_code for letter in letters} == {"unhandled_exception"}
    assert await service.leftovers() == (0, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"nested": [float("-inf")]}, 2**63, object()])
async def test_a_header_that_amqp_cannot_carry_is_refused_to_its_sender(serve: Serve, value: object) -> None:
    """RabbitMQ closes the connection over a float that is no number."""
    service = await serve(Recorder())
    producer = service.app.producer

    with pytest.raises(EncodeError, match="header"):
        await producer.send_fire_and_forget(service.queue, {}, headers={"bad": value})

    assert (await producer.send_message(service.queue, 1))["data"] == 1


# --- large -----------------------------------------------------------------------------------------


async def test_a_thousand_headers_are_handled_retried_and_restored(serve: Serve) -> None:
    headers: dict[str, object] = {f"x-header-{n}": f"value {n}" for n in range(1000)}
    recorder = Recorder(ValueError("no"))
    service = await serve(recorder, max_retries=1, retry_delay=0.5)

    await service.send(headers=headers)

    envelope = await service.dead()
    assert recorder.runs == 2
    assert headers.items() <= recorder.messages[0].headers.items()
    assert headers.items() <= envelope.properties.headers.items()


@pytest.mark.parametrize("size", [70_000, 110_000])
async def test_headers_over_64_kib_are_dead_lettered_while_the_neighbours_go_on(
    serve: Serve, size: int
) -> None:
    recorder = Recorder()
    service = await serve(recorder)

    before = await service.send(b"1")
    large = await service.send(b"2", headers={"large": "x" * size, "small": 1})
    after = await service.send(b"3")
    replies = {reply["correlation_id"]: reply for reply in [await service.reply() for _ in range(3)]}

    assert (replies[before]["data"], replies[after]["data"]) == (1, 3)
    assert replies[large]["error_code"] == "too_large"
    letter = await service.letter()
    assert letter.headers["x-autosell-reason-code"] == "too_large"
    envelope = restore(letter.body)
    assert envelope.body == b"2"
    assert {"large": "x" * size, "small": 1}.items() <= envelope.properties.headers.items()
    assert "limit is 65536" in envelope.reason
    assert sorted(map(str, recorder.payloads)) == ["1", "3"]
    assert await service.leftovers() == (0, 0)


async def test_a_large_body_with_large_headers_keeps_its_body(serve: Serve) -> None:
    """No envelope takes both, and no frame the sender's headers beside ours: the body is what counts."""
    service = await serve(Recorder(), settings={"max_body_bytes": 100_000})
    body = b'"' + b"x" * 90_000 + b'"'

    await service.send(body, headers={"large": "x" * 119_900})

    letter = await service.letter()
    assert letter.body == body
    assert letter.headers["x-autosell-reason-code"] == "too_large"


@pytest.mark.rabbitmq
async def test_a_header_of_120_kib_of_a_foreign_client_is_dead_lettered() -> None:
    """Our own client refuses to send it; it is just below what closes a connection."""
    async with serving("rabbitmq") as serve:
        recorder = Recorder()
        service = await serve(recorder)
        publish_by_pika(service.queue, b"1", headers={"large": "x" * 120 * 1024})
        await service.send(b"2")

        assert (await service.reply())["data"] == 2
        envelope = await service.dead()
        assert (envelope.body, envelope.reason_code) == (b"1", "too_large")
        assert len(str(envelope.properties.headers["large"])) == 120 * 1024
        assert recorder.payloads == [2]
        assert await service.leftovers() == (0, 0)


@pytest.mark.rabbitmq
async def test_headers_of_every_type_come_through_a_retry_and_the_dlq() -> None:
    async with serving("rabbitmq") as serve:
        recorder = Recorder(ValueError("no"))
        service = await serve(recorder, max_retries=1, retry_delay=0.5)
        headers: dict[str, Any] = {
            "bytes": b"\x00\xff",
            "list": [1, "two", [-5, None], {"deep": True}],
            "table": {"when": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)},
            "decimal": Decimal("12.50"),
            "empty": "",
            "": "no name",
            "юникод": "значение",
        }
        publish_by_pika(service.queue, b"1", headers=headers)

        envelope = await service.dead()

        assert recorder.runs == 2
        restored = dict(envelope.properties.headers)
        for message in recorder.messages:
            assert headers["list"] == message.headers["list"]
        assert {name: restored[name] for name in headers if name != "decimal"} == {
            name: value for name, value in headers.items() if name != "decimal"
        }
        assert Decimal(str(restored["decimal"])) == Decimal("12.5")
