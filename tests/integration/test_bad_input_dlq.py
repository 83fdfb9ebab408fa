"""A DLQ that is missing, full or leads back: the original stays unacked until its letter is stored."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest

from autosell_rmq import PublishNacked, QueueNotFound, RabbitMQ, Settings
from autosell_rmq.codec import restore
from autosell_rmq.exceptions import DeliveryLost
from autosell_rmq.message import Properties
from autosell_rmq.testing import Faults, FaultyBroker, MemoryBroker, memory_server
from autosell_rmq.topology import Queue, Topology
from tests.integration.bad_input_fixtures import BROKERS, Recorder, Serve, Service, serving
from tests.support.inbox import Inbox
from tests.support.names import unique
from tests.support.publications import send, to
from tests.support.waiting import eventually


@pytest.fixture(params=BROKERS)
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    async with serving(request.param) as serve:
        yield serve


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of dead letters that could not be published."""
    messages = (record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
    return [message for message in messages if message.startswith("a dead letter")]


async def test_a_missing_dlq_holds_everything_until_it_is_back_and_nothing_is_lost(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    service = await serve(recorder, settings={"backoff": 0.1, "max_backoff": 0.2})
    await serve.lab.delete_queue(service.dlq)

    bad = await service.send(b"no json")
    await eventually(lambda: len(failures(caplog)) >= 3)  # tried again and again
    held = await service.send(b"1")  # the flow is held: this handler does not start
    before = len(failures(caplog))
    await eventually(lambda: len(failures(caplog)) >= before + 2)

    assert recorder.runs == 0
    assert f"a dead letter to '{service.dlq}' failed" in failures(caplog)[0]
    assert "the next try is in 0.1 s" in failures(caplog)[0]
    assert "the next try is in 0.2 s" in failures(caplog)[1]  # it backs off

    await service.outside.declare(Topology(queues=(Queue(name=service.dlq),)))

    replies = {reply["correlation_id"]: reply["success"] for reply in [await service.reply() for _ in "ab"]}
    assert replies == {bad: False, held: True}
    assert (await service.dead()).body == b"no json"
    assert await service.leftovers() == (0, 0)


async def test_a_message_whose_dlq_is_missing_is_unacked_when_the_app_ends(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    service = await serve(Recorder(), settings={"backoff": 0.1, "drain_timeout": 0.1})
    await serve.lab.delete_queue(service.dlq)

    await service.send(b"no json")
    await eventually(lambda: len(failures(caplog)) >= 1)
    await service.app.stop_consuming()

    await eventually(lambda: depth_is(service, 1))


async def depth_is(service: Service, count: int) -> bool:
    return await service.lab.depth(service.queue) == count


async def test_a_full_dlq_refuses_its_letters_and_gets_them_once_there_is_room(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    full = unique("full")
    room_for_one = {"x-queue-type": "classic", "x-max-length": 1, "x-overflow": "reject-publish"}
    queue = await serve.lab.queue(serve.outside)
    await serve.outside.declare(Topology(queues=(Queue(name=full, arguments=room_for_one),)))
    await send(serve.outside, to(full, b"first"))
    with pytest.raises(PublishNacked):
        await send(serve.outside, to(full, b"one too many"))
    service = await serve(recorder, settings={"backoff": 0.1}, queue=queue, dlq=full, declare=False)

    cid = await service.send(b"no json")
    await eventually(lambda: len(failures(caplog)) >= 2)

    assert "refused" in failures(caplog)[0]
    assert recorder.runs == 0
    assert (await service.letter()).body == b"first"  # now there is room
    assert (await service.dead()).body == b"no json"
    assert (await service.reply())["correlation_id"] == cid
    assert await service.leftovers() == (0, 0)


async def test_without_its_dlq_an_app_that_may_not_declare_does_not_start(serve: Serve) -> None:
    queue = await serve.lab.queue(serve.outside)
    service = await serve(Recorder(), queue=queue, declare=False, start=False)

    with pytest.raises(QueueNotFound, match=f"{queue}_dlq"):
        await service.app.start_consuming()


async def test_an_unroutable_retry_waits_in_the_delay_line_for_its_queue(serve: Serve) -> None:
    """The queue is deleted while a retry waits: the copy is not lost, it comes when the queue is back."""
    first_run = asyncio.Event()
    seen: list[object] = []

    async def handler(payload: object) -> None:
        seen.append(payload)
        first_run.set()
        if len(seen) == 1:
            raise ValueError("once")

    service = await serve(handler, retry_delay=0.5)
    await service.send(b"1")
    await first_run.wait()
    await service.until(lambda: service.app.statistics.retried == 1)
    await service.app.stop_consuming()
    await serve.lab.delete_queue(service.queue)

    await service.app.start_consuming()  # declares it anew, before the copy is back

    assert (await service.reply())["success"]
    assert seen == [1, 1]


# --- a DLQ that leads back -------------------------------------------------------------------------


async def leading_back(serve: Serve, recorder: Recorder) -> Service:
    """A service whose DLQ sends everything back to the work queue after 0.3 s."""
    queue, dlq = await serve.lab.queue(serve.outside), unique("back")
    arguments: dict[str, object] = {
        "x-queue-type": "classic",
        "x-message-ttl": 300,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
    }
    await serve.outside.declare(Topology(queues=(Queue(name=dlq, arguments=arguments),)))
    return await serve(recorder, queue=queue, dlq=dlq, declare=False, max_retries=0)


async def test_a_dlq_that_leads_back_loses_nothing_and_stops_with_its_cause(serve: Serve) -> None:
    """Each round is a message of its own: the pace is the DLQ's TTL, and a fixed handler ends it."""
    recorder = Recorder(ValueError("no"))
    service = await leading_back(serve, recorder)

    await service.send(b"1")
    await service.until(lambda: recorder.runs >= 3)
    recorder.error = None
    await service.until(lambda: service.app.statistics.handled == 1)

    assert await service.leftovers() == (0, 0)


async def test_a_letter_that_comes_back_is_not_put_into_another_envelope(serve: Serve) -> None:
    recorder = Recorder(ValueError("no"))
    service = await leading_back(serve, recorder)

    await service.send(json.dumps({"order": 1}).encode())
    await service.until(lambda: recorder.runs >= 4)

    assert max(len(message.body) for message in recorder.messages) < 3_000
    assert all(payload == {"order": 1} for payload in recorder.payloads)


# --- a crash ---------------------------------------------------------------------------------------


async def test_a_letter_that_was_stored_before_its_ack_was_lost_comes_twice_under_one_id() -> None:
    """On the broker in memory, where the connection can be cut at that very await."""
    with memory_server() as server:
        outside = MemoryBroker(Settings(url=server.url))
        await outside.open()
        faults = Faults()
        faults.on("ack", before=DeliveryLost("the connection was cut"))
        app = RabbitMQ(broker=FaultyBroker(MemoryBroker(Settings(url=server.url)), faults), backoff=0.01)
        app.handler("orders")(Recorder())
        await app.start_consuming()
        properties = Properties(message_id="m-1", correlation_id="c-1")
        await send(outside, to("orders", b"no json", properties))
        await eventually(lambda: "ack:before" in faults.passed)
        server.close_connections()
        await outside.open()
        await eventually(lambda: server.queue("orders_dlq").depth == 2)
        await app.close()
        inbox = await Inbox.of(outside, "orders_dlq")
        letters = [delivery.message for delivery in await inbox.take(2)]

        assert [letter.message_id for letter in letters] == ["m-1", "m-1"]
        assert [restore(letter.body).body for letter in letters] == [b"no json", b"no json"]
        assert server.queue("orders").depth == 0
        await outside.close()
