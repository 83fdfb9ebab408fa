"""Requests and replies: many in flight over one address, matched by id; late, odd and missing replies."""

import asyncio
import json
import logging
import random

import pytest

from autosell_rmq import (
    ClosedError,
    DecodeError,
    EncodeError,
    Message,
    MessageTooLarge,
    PublishUnroutable,
    RabbitMQ,
    RabbitMQProducer,
    ReplyTimeout,
)
from autosell_rmq.message import Properties, Publication
from autosell_rmq.testing import Faults
from tests.integration.app_fixtures import Gate, Stage
from tests.integration.stage_fixtures import MemoryStage, RabbitStage
from tests.support.inbox import Inbox
from tests.support.waiting import PATIENCE, eventually

IN_FLIGHT = 500


async def answer(stage: Stage, request: Message, body: bytes, *, with_id: bool = True) -> None:
    """Reply to a request by hand."""
    assert request.reply_to is not None
    properties = Properties(correlation_id=request.correlation_id if with_id else None)
    await stage.outside.publish(
        Publication(body=body, routing_key=request.reply_to, properties=properties, mandatory=False),
        timeout=PATIENCE,
    )


async def test_many_calls_in_flight_get_their_own_replies_over_one_address(stage: Stage) -> None:
    queue = await stage.declared()
    inbox = await Inbox.of(stage.outside, queue, prefetch=IN_FLIGHT)
    producer = stage.producer()
    calls = [asyncio.create_task(producer.send_message(queue, n)) for n in range(IN_FLIGHT)]
    deliveries = await inbox.take(IN_FLIGHT)
    assert producer.requests_in_flight == IN_FLIGHT
    requests = [delivery.message for delivery in deliveries]
    assert len({request.reply_to for request in requests}) == 1

    random.shuffle(requests)
    await asyncio.gather(*(answer(stage, r, b'{"twice":%d}' % (int(r.body) * 2)) for r in requests))
    replies = await asyncio.gather(*calls)

    assert [reply["twice"] for reply in replies] == [n * 2 for n in range(IN_FLIGHT)]
    assert producer.requests_in_flight == producer.late_replies == 0


async def test_many_calls_to_a_real_handler(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()

    @app.handler(queue, prefetch=100)
    async def double(payload: int) -> int:
        await asyncio.sleep(0)
        return payload * 2

    await app.start_consuming()
    replies = await asyncio.gather(*(app.producer.send_message(queue, n) for n in range(IN_FLIGHT)))
    assert [reply["data"] for reply in replies] == [n * 2 for n in range(IN_FLIGHT)]


async def test_a_missing_reply_is_a_timeout_that_names_the_request_and_a_late_one_is_dropped(
    stage: Stage,
) -> None:
    queue = await stage.declared()
    inbox = await Inbox.of(stage.outside, queue)
    producer = stage.producer()
    with pytest.raises(ReplyTimeout, match="the request itself was accepted") as raised:
        await producer.send_message(queue, 1, timeout=0.2)
    request = (await inbox.next()).message

    assert isinstance(raised.value, TimeoutError)
    assert raised.value.correlation_id == request.correlation_id
    assert (raised.value.queue, raised.value.timeout) == (queue, 0.2)
    assert producer.requests_in_flight == 0

    other = asyncio.create_task(producer.send_message(queue, 2))
    second = (await inbox.next()).message
    await answer(stage, request, b'{"late":true}')
    await eventually(lambda: producer.late_replies == 1)
    assert not other.done()  # a late reply is nobody else's
    await answer(stage, second, b'{"late":false}')
    assert await other == {"late": False}


async def test_asking_again_under_the_id_of_a_timeout_gets_the_stored_reply(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    gate = Gate()

    @app.handler(queue)
    async def slow(payload: int) -> int:
        await gate()
        return gate.entered

    await app.start_consuming()
    with pytest.raises(ReplyTimeout) as raised:
        await app.producer.send_message(queue, 1, timeout=0.2)
    gate.open()
    reply = await app.producer.send_message(queue, 1, correlation_id=raised.value.correlation_id)
    assert reply["data"] == 1
    assert gate.entered == 1


async def test_two_requests_in_flight_under_one_id_are_both_answered(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    runs: list[int] = []

    @app.handler(queue)
    async def handler(payload: int) -> int:
        runs.append(payload)
        return len(runs)

    await app.start_consuming()
    calls = (app.producer.send_message(queue, 1, correlation_id="same") for _ in range(5))
    replies = await asyncio.gather(*calls)
    assert all(reply == replies[0] for reply in replies)
    assert runs == [1]


@pytest.mark.parametrize("body", [b"", b"no json", b"\xff", b"[1]", b'"text"', b'{"a":NaN}'])
async def test_a_reply_that_is_no_json_object_is_an_error(stage: Stage, body: bytes) -> None:
    queue = await stage.declared()
    inbox = await Inbox.of(stage.outside, queue)
    producer = stage.producer()
    call = asyncio.create_task(producer.send_message(queue, 1))
    await answer(stage, (await inbox.next()).message, body)

    with pytest.raises(DecodeError, match="the reply cannot be read"):
        await call
    assert producer.requests_in_flight == 0


async def test_a_foreign_server_may_put_the_id_into_the_body_only(stage: Stage) -> None:
    queue = await stage.declared()
    inbox = await Inbox.of(stage.outside, queue)
    producer = stage.producer()
    call = asyncio.create_task(producer.send_message(queue, 1, correlation_id="mine"))
    request = (await inbox.next()).message
    await answer(stage, request, b'{"correlation_id":"mine"}', with_id=False)
    assert await call == {"correlation_id": "mine"}


async def test_without_waiting_it_is_sent_and_said_so(stage: Stage) -> None:
    queue = await stage.declared()
    inbox = await Inbox.of(stage.outside, queue)
    producer = stage.producer()
    reply = await producer.send_message(queue, {"n": 1}, wait_for_response=False, correlation_id="mine")
    told = await producer.send_fire_and_forget(queue, {"n": 2})

    assert reply == {"correlation_id": "mine", "sent": True}
    first, second = (delivery.message for delivery in await inbox.take(2))
    assert (first.correlation_id, first.reply_to, json.loads(first.body)) == ("mine", None, {"n": 1})
    assert (second.correlation_id, second.reply_to) == (told, None)
    for message in (first, second):
        assert message.properties.persistent
        assert message.message_id
        assert message.properties.content_type == "application/json"
        assert message.properties.timestamp is not None
    assert first.message_id != second.message_id


async def test_a_missing_queue_is_told_at_once_and_the_address_survives(stage: Stage) -> None:
    queue, missing = await stage.declared(), stage.queue()
    inbox = await Inbox.of(stage.outside, queue)
    producer = stage.producer()
    pending = asyncio.create_task(producer.send_message(queue, 1))
    request = (await inbox.next()).message

    async with asyncio.timeout(5):
        for send in (
            producer.send_message(missing, 1),
            producer.send_message(missing, 1, wait_for_response=False),
            producer.send_fire_and_forget(missing, 1),
        ):
            with pytest.raises(PublishUnroutable, match=missing):
                await send
    await answer(stage, request, b'{"ok":true}')
    assert await pending == {"ok": True}


@pytest.mark.parametrize("data", [float("nan"), b"\xff", object(), [float("inf")]])
async def test_data_that_is_no_json_is_refused_before_it_is_sent(stage: Stage, data: object) -> None:
    queue = await stage.declared()
    producer = stage.producer()
    for send in (producer.send_message(queue, data), producer.send_fire_and_forget(queue, data)):
        with pytest.raises(EncodeError):
            await send
    assert await stage.depth(queue) == 0


async def test_data_over_the_limit_is_refused_before_it_is_sent(stage: Stage) -> None:
    queue = await stage.declared()
    producer = stage.producer(max_body_bytes=100)
    await producer.send_fire_and_forget(queue, "x" * 98)
    with pytest.raises(MessageTooLarge, match=r"101 bytes; the limit is 100 \(max_body_bytes\)"):
        await producer.send_fire_and_forget(queue, "x" * 99)
    await stage.has(queue, 1)


async def test_a_caller_that_gives_up_leaves_nothing_behind(stage: Stage) -> None:
    queue = await stage.declared()
    inbox = await Inbox.of(stage.outside, queue)
    producer = stage.producer()
    call = asyncio.create_task(producer.send_message(queue, 1))
    request = (await inbox.next()).message
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert producer.requests_in_flight == 0
    await answer(stage, request, b"{}")
    await eventually(lambda: producer.late_replies == 1)


async def test_close_ends_what_is_pending_and_everything_after_it(stage: Stage) -> None:
    queue = await stage.declared()
    producer = stage.producer()
    pending = [asyncio.create_task(producer.send_message(queue, n)) for n in range(3)]
    await stage.has(queue, 3)
    await producer.close()
    await producer.close()

    for call in pending:
        with pytest.raises(ClosedError):
            await call
    with pytest.raises(ClosedError, match="closed"):
        await producer.send_fire_and_forget(queue, 1)
    with pytest.raises(ClosedError, match="closed"):
        await producer.send_message(queue, 1)
    await producer.connect()
    await producer.send_fire_and_forget(queue, 1)
    await stage.has(queue, 4)


async def test_another_event_loop_is_refused(stage: Stage) -> None:
    queue = await stage.declared()
    producer = stage.producer()
    await producer.send_fire_and_forget(queue, 1)

    def elsewhere() -> None:
        asyncio.run(_send(producer, queue))

    with pytest.raises(ClosedError, match="another event loop"):
        await asyncio.to_thread(elsewhere)
    await producer.send_fire_and_forget(queue, 2)
    await stage.has(queue, 2)


async def _send(producer: RabbitMQProducer, queue: str) -> None:
    await producer.send_fire_and_forget(queue, 1)


async def test_concurrent_first_calls_share_one_address(memory: MemoryStage) -> None:
    queue = memory.queue()
    faults = Faults()
    app: RabbitMQ = await memory.faulty_app(faults)

    @app.handler(queue)
    async def echo(payload: int) -> int:
        return payload

    await app.start_consuming()
    replies = await asyncio.gather(*(app.producer.send_message(queue, n) for n in range(20)))
    assert [reply["data"] for reply in replies] == list(range(20))
    assert faults.passed.count("open_requester:before") == 1


@pytest.mark.rabbitmq
async def test_concurrent_first_calls_share_one_connection(
    rabbit: RabbitStage, caplog: pytest.LogCaptureFixture
) -> None:
    queue = await rabbit.declared()
    caplog.set_level(logging.INFO)
    caplog.clear()
    producer = rabbit.producer()
    await asyncio.gather(*(producer.send_fire_and_forget(queue, n) for n in range(20)))
    assert sum("connected to RabbitMQ" in record.message for record in caplog.records) == 1
    await rabbit.has(queue, 20)
