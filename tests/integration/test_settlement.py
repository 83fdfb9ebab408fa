"""An outcome is published and confirmed before its message is acked; a failed publish holds all else."""

import asyncio

import pytest

from autosell_rmq import MemoryStore, Message, PublishNacked, PublishUnknown, RabbitMQ, Reject
from autosell_rmq.exceptions import BrokerUnavailable, DeliveryLost, PublishError
from autosell_rmq.pipeline import Statistics
from autosell_rmq.testing import Faults, cancel_caller
from autosell_rmq.topology import Queue, Topology
from tests.integration.app_fixtures import Stage
from tests.integration.stage_fixtures import MemoryStage
from tests.support.waiting import eventually


class Handler:
    """Does what its payload says."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    async def __call__(self, payload: str, message: Message) -> str:
        self.seen.append(payload)
        if payload == "reject":
            raise Reject("asked for")
        if payload == "fail" and message.attempt == 1:
            raise ValueError("asked for")
        return payload


@pytest.fixture
def handler() -> Handler:
    return Handler()


async def started(app: RabbitMQ, queue: str, handler: Handler, prefetch: int = 20) -> None:
    app.handler(queue, prefetch=prefetch)(handler)
    await app.start_consuming()


@pytest.mark.parametrize(("payload", "publishes"), [("ok", 1), ("reject", 2), ("fail", 1)])
async def test_every_outcome_is_confirmed_before_the_ack(
    memory: MemoryStage, handler: Handler, payload: str, publishes: int
) -> None:
    queue = memory.queue()
    faults = Faults()
    await started(await memory.faulty_app(faults), queue, handler)
    await memory.ask(queue, payload)
    await eventually(lambda: "ack:after" in faults.passed)

    settled = faults.passed[: faults.passed.index("ack:after") + 1]
    steps = [step for step in settled if step.startswith(("publish", "ack"))]
    assert steps == ["publish:before", "publish:after"] * publishes + ["ack:before", "ack:after"]


async def test_a_request_without_reply_to_is_acked_without_a_publish(
    memory: MemoryStage, handler: Handler
) -> None:
    queue = memory.queue()
    faults = Faults()
    await started(await memory.faulty_app(faults), queue, handler)
    await memory.ask(queue, "ok", reply_to=None)
    await eventually(lambda: "ack:after" in faults.passed)
    assert "publish:before" not in faults.passed


@pytest.mark.parametrize("payload", ["ok", "reject", "fail"])
@pytest.mark.parametrize("error", [PublishNacked, PublishUnknown, BrokerUnavailable])
@pytest.mark.parametrize("times", [1, 5])
async def test_a_refused_publish_is_tried_until_it_is_confirmed(
    memory: MemoryStage, handler: Handler, payload: str, error: type[PublishError], times: int
) -> None:
    queue = memory.queue()
    faults = Faults()
    await started(await memory.faulty_app(faults), queue, handler)
    faults.on("publish", before=error, times=times)
    sent = await memory.ask(queue, payload)

    reply = await memory.reply(sent)
    assert reply["success"] is (payload != "reject")
    assert memory.replies(sent) == 0
    assert len(handler.seen) == (2 if payload == "fail" else 1)
    await eventually(lambda: memory.server.queue(queue).unacked == 0)
    assert await memory.depth(f"{queue}_dlq") == (payload == "reject")


@pytest.mark.parametrize("payload", ["ok", "reject", "fail"])
async def test_a_publish_of_unknown_outcome_is_repeated_and_has_one_effect(
    memory: MemoryStage, handler: Handler, payload: str
) -> None:
    queue = memory.queue()
    faults = Faults()
    await started(await memory.faulty_app(faults), queue, handler)
    faults.on("publish", after=PublishUnknown, times=2)
    sent = await memory.ask(queue, payload)

    replies = [(await memory.reply(sent)) for _ in range(1 if payload == "reject" else 3)]
    assert all(reply == replies[0] for reply in replies)
    assert await memory.depth(f"{queue}_dlq") == (3 if payload == "reject" else 0)
    assert len(handler.seen) == (2 if payload == "fail" else 1)


async def test_no_handler_starts_while_an_outcome_cannot_be_published(
    memory: MemoryStage, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    queue = memory.queue()
    faults = Faults()
    await started(await memory.faulty_app(faults), queue, handler, prefetch=3)
    faults.on("publish", before=PublishNacked, times=3)
    again = faults.hold("publish")
    first = await memory.ask(queue, "first")
    await again.reached.wait()  # three tries have failed, the fourth is under way

    later = [await memory.ask(queue, f"later {n}") for n in range(5)]
    await memory.pass_time(0)
    assert handler.seen == ["first"]
    assert memory.server.queue(queue).unacked == 3  # as many as the prefetch allows, none acked
    assert await memory.depth(queue) == 3

    again.released.set()
    for identity in (first, *later):
        assert (await memory.reply(identity))["success"]
    assert len(handler.seen) == 6
    assert "a reply to" in caplog.text
    assert "the next try is in" in caplog.text


async def test_a_dead_letter_waits_until_there_is_a_dlq_again(stage: Stage, handler: Handler) -> None:
    queue = stage.queue()
    app = stage.app(backoff=0.05, max_backoff=0.1)
    await started(app, queue, handler)
    await stage.delete_queue(f"{queue}_dlq")
    sent = await stage.ask(queue, "reject")
    await eventually(lambda: handler.seen == ["reject"])
    other = await stage.ask(queue, "ok")
    assert stage.replies(sent) == 0

    await stage.outside.declare(Topology(queues=(Queue(name=f"{queue}_dlq"),)))
    assert (await stage.letter(queue))["reason_code"] == "rejected"
    assert (await stage.reply(sent))["error_code"] == "rejected"
    assert (await stage.reply(other))["data"] == "ok"
    assert handler.seen == ["reject", "ok"]


async def test_a_deleted_delay_queue_is_declared_again(memory: MemoryStage, handler: Handler) -> None:
    queue = memory.queue()
    await started(memory.app(backoff=0.01), queue, handler)
    assert (await memory.reply(await memory.ask(queue, "fail")))["data"] == "fail"
    await memory.delete_queue("autosell.delay.1s")  # on a real server others share it
    await memory.delete_exchange("autosell.delay.1s")
    assert (await memory.reply(await memory.ask(queue, "fail")))["data"] == "fail"


async def test_a_reply_that_nobody_waits_for_is_counted_and_the_message_acked(
    stage: Stage, handler: Handler
) -> None:
    queue = stage.queue()
    app = stage.app()
    await started(app, queue, handler)
    await stage.ask(queue, "ok", reply_to=stage.queue("gone"))

    await eventually(lambda: app.statistics.replies_lost == 1)
    await app.stop_consuming()
    assert app.statistics == Statistics(handled=1, replies_lost=1)
    assert await stage.depth(queue) == 0
    assert await stage.depth(f"{queue}_dlq") == 0


@pytest.mark.parametrize("address", [".", ".x", ".gone.away", ".g1h2AA==.a2V5"])
async def test_a_forged_direct_reply_address_does_not_hold_up_the_others(
    stage: Stage, handler: Handler, address: str
) -> None:
    """RabbitMQ closes the connection over some of them."""
    queue = stage.queue()
    app = stage.app(backoff=0.05)
    await started(app, queue, handler)
    await stage.ask(queue, "forged", reply_to=f"amq.rabbitmq.reply-to{address}")
    sent = await stage.ask(queue, "ok")

    assert (await stage.reply(sent))["data"] == "ok"
    await eventually(lambda: app.statistics.handled == 2)
    await app.stop_consuming()
    assert await stage.depth(queue) == 0
    assert handler.seen == ["forged", "ok"]


async def test_no_reply_goes_to_a_queue_of_the_app_itself(stage: Stage, handler: Handler) -> None:
    queue = stage.queue()
    app = stage.app()
    await started(app, queue, handler)
    for address in (queue, f"{queue}_dlq", "autosell.delay.1s"):
        await stage.ask(queue, "ok", reply_to=address)

    await eventually(lambda: app.statistics.replies_refused == 3)
    await app.stop_consuming()
    assert app.statistics == Statistics(handled=3, replies_refused=3)
    assert (await stage.depth(queue), await stage.depth(f"{queue}_dlq")) == (0, 0)


async def test_a_cancellation_at_the_ack_loses_nothing(memory: MemoryStage, handler: Handler) -> None:
    queue = memory.queue()
    faults = Faults()
    await started(await memory.faulty_app(faults), queue, handler)
    faults.on("ack", before=cancel_caller)
    sent = await memory.ask(queue, "ok")

    replies = [await memory.reply(sent) for _ in range(2)]  # given back, and answered from the store
    assert replies[0] == replies[1]
    assert handler.seen == ["ok"]
    await eventually(lambda: memory.server.queue(queue).unacked == 0)


async def test_an_ack_in_flight_is_not_undone_by_a_cancellation(stage: Stage, handler: Handler) -> None:
    queue = stage.queue()
    faults = Faults()
    app = await stage.faulty_app(faults)
    await started(app, queue, handler)
    faults.on("ack", after=cancel_caller)
    sent = await stage.ask(queue, "ok")
    assert (await stage.reply(sent))["data"] == "ok"
    await eventually(lambda: "ack:after" in faults.passed)
    await app.stop_consuming()

    assert "requeue:after" not in faults.passed
    assert await stage.depth(queue) == 0


async def test_a_lost_delivery_is_left_to_the_broker(memory: MemoryStage, handler: Handler) -> None:
    queue = memory.queue()
    faults = Faults()
    store = MemoryStore()
    await started(await memory.faulty_app(faults, store=store), queue, handler)
    faults.deliver_twice()
    sent = await memory.ask(queue, "ok")
    assert [(await memory.reply(sent))["data"] for _ in range(2)] == ["ok", "ok"]
    assert handler.seen == ["ok"]

    faults.on("ack", before=DeliveryLost("the channel is gone"))
    await memory.ask(queue, "ok")
    await eventually(lambda: faults.passed.count("ack:before") == 2)
    await asyncio.sleep(0)
    assert not any(step.startswith(("requeue", "fail")) for step in faults.passed)
