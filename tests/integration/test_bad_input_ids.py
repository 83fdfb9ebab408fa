"""Ids of any shape: missing, empty, long, foreign. What looks alike is not the same; logs stay readable."""

import logging
from collections.abc import AsyncIterator

import pytest

from autosell_rmq import EncodeError
from autosell_rmq.topology import Queue, Topology
from tests.integration.bad_input_fixtures import BROKERS, Recorder, Serve, serving
from tests.support.names import unique

ODD = [
    " ",
    "x" * 255,
    "я" * 127,
    "\U0001f430\U0001f47b",
    "\x00",
    "a\x00b",
    "\r\nERROR forged line",
    "\x1b[31mred\x1b[0m\x07",
    "%s %d %(name)s {0} {name}",
    "\u202eevil\u2066",
    "'; DROP TABLE orders; --",
    "../../etc/passwd",
]


@pytest.fixture(params=BROKERS)
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    async with serving(request.param) as serve:
        yield serve


async def test_without_any_id_each_message_is_handled_without_a_claim_and_counted(serve: Serve) -> None:
    recorder = Recorder()
    service = await serve(recorder)

    for _ in range(2):
        await service.send_without_ids(b"1")
    replies = [await service.reply() for _ in range(2)]

    assert replies == [{"success": True, "data": 1, "correlation_id": None}] * 2
    assert (recorder.runs, service.app.statistics.without_id) == (2, 2)
    assert [message.idempotency_key for message in recorder.messages] == [None, None]


async def test_an_empty_correlation_id_is_none_at_all(serve: Serve) -> None:
    recorder = Recorder()
    service = await serve(recorder)

    for _ in range(2):
        await service.send_without_ids(b"1", correlation_id="")
    for _ in range(2):
        assert (await service.reply())["data"] == 1

    assert (recorder.runs, service.app.statistics.without_id) == (2, 2)


async def test_the_message_id_stands_in_for_a_missing_correlation_id(serve: Serve) -> None:
    recorder = Recorder()
    service = await serve(recorder)

    for _ in range(2):
        await service.send(b"1", correlation_id=None, message_id=f"m-{service.queue}")
        assert (await service.reply())["data"] == 1

    assert (recorder.runs, service.app.statistics.duplicates) == (1, 1)


async def test_odd_ids_come_back_as_they_were_and_are_known_again(serve: Serve) -> None:
    recorder = Recorder()
    service = await serve(recorder, prefetch=50)

    for cid in ODD:
        await service.send(b"1", correlation_id=cid)
    first = [await service.reply_message() for _ in ODD]
    for cid in ODD:
        await service.send(b"1", correlation_id=cid)
    second = [await service.reply_message() for _ in ODD]

    assert {reply.correlation_id for reply in first} == set(ODD)
    assert {reply.body for reply in first} == {reply.body for reply in second}
    assert (recorder.runs, service.app.statistics.duplicates) == (len(ODD), len(ODD))


async def test_ids_that_a_database_might_take_for_one_are_independent(serve: Serve) -> None:
    alike = ["AbC", "aBc", "abc", "abc ", " abc", "abc\x00", "\u00e9", "e\u0301", "\uff41bc"]
    recorder = Recorder()
    service = await serve(recorder)

    for cid in alike:
        await service.send(b"1", correlation_id=cid)
    for _ in alike:
        await service.reply()

    assert recorder.runs == len(alike)
    assert len({message.idempotency_key for message in recorder.messages}) == len(alike)


async def test_the_same_id_in_two_queues_is_independent(serve: Serve) -> None:
    recorder = Recorder()
    services = [await serve(recorder), await serve(recorder)]

    for service in services:
        await service.send(b"1", correlation_id="same")
        await service.reply()

    assert recorder.runs == 2


@pytest.mark.parametrize("cid", ["x" * 256, "я" * 128, "\ud800"], ids=ascii)
async def test_an_id_that_amqp_cannot_carry_is_refused_to_its_sender(serve: Serve, cid: str) -> None:
    service = await serve(Recorder())
    producer = service.app.producer

    with pytest.raises(EncodeError, match="correlation_id"):
        await producer.send_message(service.queue, 1, correlation_id=cid)
    assert (await producer.send_message(service.queue, 1))["data"] == 1


async def test_no_control_character_of_a_message_reaches_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a stranger writes into ids, addresses, headers, bodies or errors: one record, one line."""
    caplog.set_level(logging.DEBUG, logger="autosell_rmq")
    nasty = "\r\n\x1b[31m\x9b\x7f\u2028\u202e%s"
    recorder = Recorder()
    service = await serve(recorder, max_retries=1, retry_delay=0.1)

    await service.send(b"1", correlation_id=f"1{nasty}")
    await service.send(b"1", correlation_id=f"1{nasty}")  # a duplicate
    await service.send(b"2", correlation_id=f"1{nasty}")  # a conflict
    await service.send(nasty.encode(), correlation_id=f"2{nasty}")
    await service.send(b"1", correlation_id=f"3{nasty}", type="reply", headers={nasty: nasty})
    for _ in range(5):
        await service.reply()
    recorder.error = RuntimeError(nasty)
    await service.send(b"1", correlation_id=f"4{nasty}", reply_to=f"no queue{nasty}")
    await service.until(lambda: service.app.statistics.replies_lost == 1)
    await service.app.stop_consuming()

    logged = [record.getMessage() for record in caplog.records if record.name.startswith("autosell_rmq")]
    assert len(logged) > 10
    assert [line for line in logged if not line.isprintable()] == []


async def test_no_control_character_of_a_reply_address_that_exists_reaches_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In memory, since our client library declares no queue of such a name."""
    caplog.set_level(logging.DEBUG, logger="autosell_rmq")
    async with serving("memory") as serve:
        service = await serve(Recorder())
        address = unique("\r\n\x1b[31m")
        await serve.outside.declare(Topology(queues=(Queue(name=address),)))

        await service.send(b"1", reply_to=address)
        await service.until(lambda: service.app.statistics.replies == 1)

    logged = [record.getMessage() for record in caplog.records if record.name.startswith("autosell_rmq")]
    assert [line for line in logged if not line.isprintable()] == []
