"""Requests whose address or confirm is lost on the way: asked again under their ids, handled once."""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import pytest

from autosell_rmq import (
    AccessRefused,
    BrokerUnavailable,
    ClosedError,
    PublishNacked,
    PublishUnknown,
    RabbitMQProducer,
    ReplyTimeout,
)
from autosell_rmq.testing import Faults, FaultyBroker
from tests.integration.app_fixtures import Stage
from tests.integration.stage_fixtures import MemoryStage, RabbitStage
from tests.support.proxy import proxy
from tests.support.waiting import eventually

type Cuttable = tuple[RabbitMQProducer, Callable[[], None]]


async def a_cuttable_producer(stage: Stage) -> Cuttable:
    """A producer, and what cuts its connection from outside."""
    if isinstance(stage, MemoryStage):
        return stage.producer(), stage.server.close_connections
    url = urlsplit(stage.url)
    between = await stage.stack.enter_async_context(proxy(url.hostname or "", url.port or 5672))
    netloc = f"{url.netloc.rpartition('@')[0]}@127.0.0.1:{between.port}"
    producer = RabbitMQProducer(urlunsplit(url._replace(netloc=netloc)))
    stage.stack.push_async_callback(producer.close)
    return producer, between.cut


class Counter:
    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, payload: int) -> int:
        self.runs += 1
        return payload


async def test_pending_requests_are_asked_again_and_answered_once(stage: Stage) -> None:
    producer, cut = await a_cuttable_producer(stage)
    queue = await stage.declared({"x-queue-type": "quorum"})
    calls = [asyncio.create_task(producer.send_message(queue, n)) for n in range(10)]
    await stage.has(queue, 10)
    cut()
    await stage.has(queue, 20)  # each of them again

    app = stage.app()
    handler = Counter()
    app.handler(queue, declare=False)(handler)
    await app.start_consuming()
    assert [(await call)["data"] for call in calls] == list(range(10))
    assert handler.runs == 10
    await eventually(lambda: app.statistics.duplicates == 10)
    assert producer.requests_in_flight == 0


@pytest.mark.rabbitmq
async def test_a_request_in_the_moment_of_the_cut_is_answered(rabbit: RabbitStage) -> None:
    producer, cut = await a_cuttable_producer(rabbit)
    queue = rabbit.queue()
    app = rabbit.app()
    handler = Counter()
    app.handler(queue)(handler)
    await app.start_consuming()
    await producer.send_message(queue, -1)
    calls = [asyncio.create_task(producer.send_message(queue, n)) for n in range(50)]
    await eventually(lambda: handler.runs > 5)
    cut()
    assert [(await call)["data"] for call in calls] == list(range(50))
    assert handler.runs == 51


async def test_a_new_request_after_the_cut_gets_a_new_address(stage: Stage) -> None:
    producer, cut = await a_cuttable_producer(stage)
    queue = await stage.declared()
    with pytest.raises(ReplyTimeout):
        await producer.send_message(queue, 0, timeout=0.1)
    cut()
    app = stage.app()
    app.handler(queue, declare=False)(Counter())
    await app.start_consuming()

    async def answered() -> bool:
        try:
            reply = await producer.send_message(queue, 1, timeout=5)
        except BrokerUnavailable:  # it has not seen the cut yet
            return False
        return reply == {"success": True, "data": 1, "correlation_id": reply["correlation_id"]}

    await eventually(answered)


async def test_close_while_asking_again_ends_the_request(memory: MemoryStage) -> None:
    queue = await memory.declared()
    producer = memory.producer()
    call = asyncio.create_task(producer.send_message(queue, 1))
    await memory.has(queue, 1)
    memory.server.stop()
    await asyncio.sleep(0)
    await producer.close()
    with pytest.raises(ClosedError):
        await call


async def test_a_server_that_comes_back_in_time_answers(memory: MemoryStage) -> None:
    queue = await memory.declared()
    producer = memory.producer()
    call = asyncio.create_task(producer.send_message(queue, 1))
    await memory.has(queue, 1)
    memory.server.stop()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not call.done()
    memory.server.start()

    app = memory.app()
    handler = Counter()
    app.handler(queue, declare=False)(handler)
    await app.start_consuming()
    assert (await call)["data"] == 1
    assert handler.runs == 1


async def test_a_server_that_stays_away_is_told_at_the_timeout(memory: MemoryStage) -> None:
    queue = await memory.declared()
    producer = memory.producer()
    call = asyncio.create_task(producer.send_message(queue, 1, timeout=0.3))
    await memory.has(queue, 1)
    memory.server.stop()
    with pytest.raises(ReplyTimeout) as raised:  # it lies in the queue and will be handled
        await call
    assert isinstance(raised.value.__cause__, BrokerUnavailable)
    assert producer.requests_in_flight == 0


@pytest.mark.parametrize("side", ["before", "after"])
async def test_an_unknown_confirm_is_asked_again_under_the_same_ids(memory: MemoryStage, side: str) -> None:
    queue = memory.queue()
    app = memory.app()
    handler = Counter()
    app.handler(queue)(handler)
    await app.start_consuming()
    faults = Faults()
    producer = RabbitMQProducer(memory.url, broker=FaultyBroker(await memory.connection(), faults))
    if side == "before":
        faults.on("requester.publish", before=PublishUnknown)
    else:
        faults.on("requester.publish", after=PublishUnknown)

    assert (await producer.send_message(queue, 1))["data"] == 1
    assert handler.runs == 1
    await producer.close()


async def test_a_refused_request_is_told_at_once(memory: MemoryStage) -> None:
    queue = await memory.declared({"x-max-length": 1, "x-overflow": "reject-publish"})
    producer = memory.producer()
    await producer.send_fire_and_forget(queue, 1)
    for send in (
        producer.send_message(queue, 2, outage_timeout=0),
        producer.send_fire_and_forget(queue, 2, outage_timeout=0),
    ):
        with pytest.raises(PublishNacked):
            await send
    assert producer.requests_in_flight == 0


async def test_an_address_that_may_not_be_opened_is_told(memory: MemoryStage) -> None:
    queue = await memory.declared()
    faults = Faults()
    producer = RabbitMQProducer(memory.url, broker=FaultyBroker(await memory.connection(), faults))
    faults.on("open_requester", before=AccessRefused)
    with pytest.raises(AccessRefused):
        await producer.send_message(queue, 1)
    with pytest.raises(ReplyTimeout):  # the next call opens it
        await producer.send_message(queue, 1, timeout=0.1)
    await producer.close()


async def test_a_request_given_up_before_its_confirm_costs_nobody_the_address(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    queue = stage.queue()
    app = stage.app()
    handler = Counter()
    app.handler(queue)(handler)
    await app.start_consuming()
    producer = stage.producer()
    await producer.send_message(queue, 0)
    given_up = asyncio.create_task(producer.send_message(queue, 1))
    for _ in range(3):  # it is on the wire, and the confirm is not
        await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    assert (await producer.send_message(queue, 2, timeout=5))["data"] == 2
    assert "the reply address was lost" not in caplog.text  # which would send all the others again


# --- a broker that is away ------------------------------------------------------------------------------


async def test_a_request_that_comes_in_an_outage_is_sent_after_it(memory: MemoryStage) -> None:
    queue = await memory.declared()
    producer = memory.producer()
    await producer.connect()
    memory.server.stop()
    calls = [asyncio.create_task(producer.send_message(queue, n)) for n in range(10)]
    await eventually(lambda: producer.requests_in_flight == 10)
    memory.server.start()

    app = memory.app()
    handler = Counter()
    app.handler(queue, declare=False)(handler)
    await app.start_consuming()
    assert [(await call)["data"] for call in calls] == list(range(10))
    assert handler.runs == 10


async def test_a_request_waits_for_the_broker_no_longer_than_it_may(memory: MemoryStage) -> None:
    queue = await memory.declared()
    producer = memory.producer(outage_timeout=0.2)
    await producer.connect()
    memory.server.stop()
    async with asyncio.timeout(5):
        with pytest.raises(BrokerUnavailable):
            await producer.send_message(queue, 1)
        with pytest.raises(BrokerUnavailable):
            await producer.send_message(queue, 1, outage_timeout=60, timeout=0.2)
        with pytest.raises(BrokerUnavailable):
            await producer.send_message(queue, 1, outage_timeout=0)
    memory.server.start()
    with pytest.raises(ReplyTimeout) as raised:  # sent, it waits for its reply, whatever patience it had
        await producer.send_message(queue, 2, timeout=0.5)
    assert raised.value.timeout == 0.5
    assert await memory.depth(queue) == 1


async def test_requests_that_wait_have_the_bounds_of_messages(memory: MemoryStage) -> None:
    queue = await memory.declared()
    producer = memory.producer(max_waiting=2)
    await producer.connect()
    memory.server.stop()
    calls = [asyncio.create_task(producer.send_message(queue, n)) for n in range(2)]
    await eventually(lambda: producer.requests_in_flight == 2)
    for send in (producer.send_message, producer.send_fire_and_forget):
        with pytest.raises(BrokerUnavailable, match=r"2 are waiting \(max_waiting=2\)"):
            await send(queue, 3)
    assert producer.requests_in_flight == 2
    calls[0].cancel()
    await asyncio.wait([calls[0]])
    message = asyncio.create_task(producer.send_fire_and_forget(queue, 4))
    memory.server.start()
    await message
    await memory.has(queue, 2)


@pytest.mark.parametrize("error", [PublishNacked, PublishUnknown, BrokerUnavailable])
async def test_a_failed_request_is_sent_again_alone(
    memory: MemoryStage, error: type[PublishNacked | PublishUnknown | BrokerUnavailable]
) -> None:
    queue = await memory.declared()
    faults = Faults()
    producer = RabbitMQProducer(memory.url, broker=FaultyBroker(await memory.connection(), faults))
    first = asyncio.create_task(producer.send_message(queue, 1))
    await memory.has(queue, 1)
    faults.on("requester.publish", before=error, times=3)
    second = asyncio.create_task(producer.send_message(queue, 2))
    await memory.has(queue, 2)
    assert faults.passed.count("requester.publish:before") == 5

    app = memory.app()
    handler = Counter()
    app.handler(queue, declare=False)(handler)
    await app.start_consuming()
    assert [(await call)["data"] for call in (first, second)] == [1, 2]
    assert handler.runs == 2
    await producer.close()


async def test_a_refused_request_is_told_when_a_confirm_should_have_come(memory: MemoryStage) -> None:
    queue = await memory.declared({"x-max-length": 1, "x-overflow": "reject-publish"})
    producer = memory.producer(publish_timeout=0.2)
    await producer.send_fire_and_forget(queue, 1)
    async with asyncio.timeout(5):
        with pytest.raises(PublishNacked):
            await producer.send_message(queue, 2)


async def test_an_accepted_request_whose_queue_has_gone_may_have_been_handled(memory: MemoryStage) -> None:
    queue = await memory.declared()
    producer = memory.producer()
    call = asyncio.create_task(producer.send_message(queue, 1))
    await memory.has(queue, 1)
    await memory.delete_queue(queue)
    memory.server.close_connections()
    with pytest.raises(PublishUnknown, match="may be handled, but could not be sent again: NO_ROUTE"):
        await call


async def test_an_unconfirmed_request_is_told_as_unknown(memory: MemoryStage) -> None:
    queue = await memory.declared()
    faults = Faults()
    producer = RabbitMQProducer(memory.url, broker=FaultyBroker(await memory.connection(), faults))
    faults.on("requester.publish", after=PublishUnknown)
    faults.on("requester.publish", before=BrokerUnavailable, times=-1, skip=1)
    with pytest.raises(PublishUnknown, match="no confirm came for a request"):
        await producer.send_message(queue, 1, timeout=0.3)
    await producer.close()


async def test_once_it_was_sent_a_request_has_its_whole_timeout(memory: MemoryStage) -> None:
    queue = await memory.declared()
    producer = memory.producer(outage_timeout=0.3)
    await producer.connect()
    clock = asyncio.get_running_loop().time
    memory.server.stop()
    patience_ends = clock() + 0.3
    call = asyncio.create_task(producer.send_message(queue, 1))
    await eventually(lambda: producer.requests_in_flight == 1)
    memory.server.start()
    await memory.has(queue, 1)
    await eventually(lambda: clock() > patience_ends + 0.05)
    app = memory.app()
    app.handler(queue, declare=False)(Counter())
    await app.start_consuming()
    assert (await call)["data"] == 1


async def test_an_address_that_is_lost_before_its_first_use_is_not_used(memory: MemoryStage) -> None:
    queue = await memory.declared()
    faults = Faults()
    producer = RabbitMQProducer(memory.url, broker=FaultyBroker(await memory.connection(), faults))
    opened = faults.hold("open_requester", "after")
    call = asyncio.create_task(producer.send_message(queue, 1))
    await opened.reached.wait()
    opened.released.set()
    memory.server.close_connections()  # told after the address is taken, and before anything is sent
    await memory.has(queue, 1)
    call.cancel()
    await producer.close()
