"""The homecoming of messages, where something fails, stops or is full: nothing is lost, nobody is held up."""

import asyncio
import logging

import pytest

from autosell_rmq import Message, PublishNacked, PublishUnknown
from autosell_rmq.brokers.memory import MemoryBroker
from autosell_rmq.config import HOMELESS
from autosell_rmq.exceptions import AccessRefused, BrokerError, BrokerUnavailable, EncodeError
from autosell_rmq.message import DIRECT_REPLY_TO, Publication
from autosell_rmq.testing import Faults
from autosell_rmq.topology import Queue, Topology, delay_name
from tests.integration.app_fixtures import Stage
from tests.integration.homecoming_fixtures import MANY, Home, at_home, homeless, lines
from tests.integration.stage_fixtures import MemoryStage
from tests.support.inbox import Inbox
from tests.support.publications import send, to
from tests.support.waiting import PATIENCE, eventually

NO_ROOM = {"x-max-length": 0, "x-overflow": "reject-publish"}


def left(memory: MemoryStage, queue: str) -> list[bytes]:
    """What is in the queue, and what is on its way there."""
    waiting = memory.server.queue(HOMELESS).messages
    found = [*memory.server.queue(queue).messages, *(one for one in waiting if one.routing_key == queue)]
    return sorted(message.body for message in found)


async def test_a_stop_waits_for_what_is_being_confirmed(memory: MemoryStage) -> None:
    queue = memory.queue()
    await homeless(memory, 3, queue)
    faults = Faults()
    hold = faults.hold("publish", "after", times=3)
    app = await memory.faulty_app(faults)
    home = await at_home(app, queue)
    await hold.reached.wait()
    stopping = asyncio.create_task(app.stop_consuming())
    await eventually(lambda: not memory.server.queue(queue).consumers)
    hold.released.set()
    await stopping

    assert sorted(home.payloads + [int(body) for body in left(memory, queue)]) == [0, 1, 2]


async def test_a_stop_does_not_wait_for_ever(memory: MemoryStage) -> None:
    queue = memory.queue()
    await homeless(memory, 3, queue)
    faults = Faults()
    hold = faults.hold("publish", "before", times=3)
    app = await memory.faulty_app(faults)
    await at_home(app, queue)
    await hold.reached.wait()
    async with asyncio.timeout(PATIENCE):
        await app.stop_consuming()
    assert left(memory, queue) == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("fault", "side"),
    [
        (BrokerUnavailable, "before"),
        (BrokerUnavailable, "after"),
        (PublishUnknown, "before"),
        (PublishUnknown, "after"),
        (PublishNacked, "before"),
    ],
)
async def test_a_failed_publish_is_tried_again(
    memory: MemoryStage, caplog: pytest.LogCaptureFixture, fault: type[Exception], side: str
) -> None:
    queue = memory.queue()
    await homeless(memory, 3, queue)
    faults = Faults()
    faults.on("publish", times=2, **{side: fault})  # type: ignore[arg-type]
    home = await at_home(await memory.faulty_app(faults), queue)

    await eventually(lambda: {*home.payloads} == {0, 1, 2})
    await eventually(lambda: memory.server.queue(HOMELESS).unacked == 0)
    await memory.has(HOMELESS, 0)
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_lost_connection_is_no_loss(memory: MemoryStage) -> None:
    queue = memory.queue()
    await homeless(memory, 3, queue)
    faults = Faults()
    hold = faults.hold("publish", times=2)
    home = await at_home(await memory.faulty_app(faults), queue)
    await hold.reached.wait()
    memory.server.close_connections()
    hold.released.set()

    await eventually(lambda: {*home.payloads} == {0, 1, 2})
    await memory.has(HOMELESS, 0)


async def test_a_full_home_gets_them_as_it_has_room(memory: MemoryStage) -> None:
    queue = memory.queue()
    await homeless(memory, 5, queue)
    app = memory.app(backoff=0.01, max_backoff=0.02)
    home = Home()
    room_for_one = {"x-max-length": 1}
    app.handler(queue, prefetch=1, arguments=room_for_one)(home)
    await app.start_consuming()
    await eventually(lambda: sorted(home.payloads) == [0, 1, 2, 3, 4])


async def test_a_home_that_takes_nothing_is_given_up(
    memory: MemoryStage, caplog: pytest.LogCaptureFixture
) -> None:
    full, queue = memory.queue("full"), memory.queue()
    await memory.outside.declare(Topology(queues=(Queue(name=full, arguments=NO_ROOM),)))
    await homeless(memory, 3, full)
    await at_home(memory.app(backoff=0.01, max_backoff=0.02), queue)

    await eventually(lambda: "nothing came home in 10 looks" in caplog.text)
    await memory.has(HOMELESS, 3)


async def test_a_home_that_does_not_confirm_hides_nobody_elses(
    memory: MemoryStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, queue = memory.queue("stuck"), memory.queue()
    await homeless(memory, MANY, stuck)
    await homeless(memory, 1, queue)
    publish = MemoryBroker.publish

    async def unconfirmed(broker: MemoryBroker, publication: Publication, *, timeout: float) -> None:
        if not publication.exchange and publication.routing_key == stuck:
            raise PublishUnknown("no confirm")
        await publish(broker, publication, timeout=timeout)

    monkeypatch.setattr(MemoryBroker, "publish", unconfirmed)
    home = await at_home(memory.app(backoff=0.01, max_backoff=0.02), queue)

    await eventually(lambda: home.payloads == [0])


async def test_a_full_home_hides_nobody_elses(memory: MemoryStage) -> None:
    full, queue = memory.queue("full"), memory.queue()
    await memory.outside.declare(Topology(queues=(Queue(name=full, arguments=NO_ROOM),)))
    await homeless(memory, MANY, full)
    await homeless(memory, 1, queue)
    home = await at_home(memory.app(backoff=0.01, max_backoff=0.02), queue)
    await eventually(lambda: home.payloads == [0])


@pytest.mark.parametrize("end", ["leaves", "is lost"])
async def test_who_comes_second_waits_for_its_turn(memory: MemoryStage, end: str) -> None:
    queue = memory.queue()
    await homeless(memory, 3, queue)
    first = await Inbox.of(memory.outside, HOMELESS, prefetch=1)
    home = await at_home(memory.app(backoff=0.01), queue)
    await eventually(lambda: len(memory.server.queue(HOMELESS).consumers) == 2)
    if end == "leaves":
        clock = asyncio.get_running_loop().time
        patient = clock() + 1.5  # longer than a queue is quiet that has nothing left
        await eventually(lambda: clock() > patient)
        await first.subscription.close()
    else:
        memory.server.close_connections()
    await eventually(lambda: sorted(home.payloads) == [0, 1, 2])


async def test_what_cannot_be_copied_stays_and_hides_nothing(
    memory: MemoryStage, caplog: pytest.LogCaptureFixture
) -> None:
    queue = memory.queue()
    await homeless(memory, 3, queue)
    faults = Faults()
    faults.on("publish", before=EncodeError("a header cannot be sent"))
    home = await at_home(await memory.faulty_app(faults), queue)

    await eventually(lambda: home.payloads == [1, 2])
    await memory.has(HOMELESS, 1)
    assert len(lines(caplog, logging.WARNING, queue)) == 2  # of the message, and of those that stay


@pytest.mark.parametrize("home", [HOMELESS, "autosell.home", delay_name(1), f"{DIRECT_REPLY_TO}.gone", ""])
async def test_what_names_no_home_stays(memory: MemoryStage, home: str) -> None:
    queue = memory.queue()
    await homeless(memory, 1, home, queue)
    app = memory.app()
    came = await at_home(app, queue)
    await eventually(lambda: came.payloads == [0])
    await memory.has(HOMELESS, 1)
    await app.stop_consuming()
    assert memory.server.queue(HOMELESS).messages[0].routing_key == home
    assert memory.server.queue(delay_name(1)).depth == 0


async def test_nobody_gets_a_reply_from_there(memory: MemoryStage) -> None:
    replies: list[Message] = []
    lost: list[BrokerError] = []
    await memory.outside.open_requester(replies.append, on_lost=lost.append)
    queue, [address] = memory.queue(), memory.server.requesters
    await homeless(memory, 1, address, queue)
    home = await at_home(memory.app(), queue)
    await eventually(lambda: home.payloads == [0])
    await memory.has(HOMELESS, 1)
    assert replies == []


async def test_without_the_permission_it_is_said_once_and_the_handler_works(
    memory: MemoryStage, caplog: pytest.LogCaptureFixture
) -> None:
    queue = memory.queue()
    await homeless(memory, 1, queue)
    faults = Faults()
    faults.on("consume", before=AccessRefused("no permission"), skip=1, times=-1)
    home = await at_home(await memory.faulty_app(faults), queue)
    await send(memory.outside, to(queue, b"7"))
    await eventually(lambda: home.payloads == [7])
    await eventually(lambda: bool(lines(caplog, logging.WARNING, "no permission")))
    said = lines(caplog, logging.WARNING, "no permission")
    assert said == [f"messages may stay in {HOMELESS}: no permission"]


async def test_apps_that_stop_in_the_middle_lose_nothing(shared: Stage) -> None:
    queue = shared.queue()
    await homeless(shared, MANY, queue)
    seen: set[int] = set()
    for after in (0.0, 0.001, 0.01, 0.05):
        home = await at_home(app := shared.app(), queue)
        await asyncio.sleep(after)  # wherever it happens to be by then
        await app.close()
        seen.update(home.payloads)
    home = await at_home(shared.app(), queue)
    await eventually(lambda: seen | {*home.payloads} == set(range(MANY)))
