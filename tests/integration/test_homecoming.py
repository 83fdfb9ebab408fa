"""Delayed messages whose queue is gone wait for it, hold nobody up, and come home once it is there again."""

import asyncio
import datetime as dt
import logging

import pytest

from autosell_rmq.config import HOMELESS
from autosell_rmq.topology import Queue, Topology, delay_name
from tests.integration.app_fixtures import Stage
from tests.integration.homecoming_fixtures import MANY, Home, at_home, homeless, lines
from tests.integration.stage_fixtures import MemoryStage
from tests.support.homeless import homeless_of
from tests.support.waiting import eventually


async def test_messages_come_home_when_their_queue_is_there_again(
    shared: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    queue = shared.queue()
    await shared.outside.declare(Topology(queues=(Queue(name=queue),)))
    producer = shared.producer()
    for number in range(3):
        await producer.send_fire_and_forget(
            queue, number, delay=1, message_id=f"m{number}", headers={"a": [1, {"b": None}], "CC": [queue]}
        )
    await shared.delete_queue(queue)
    await shared.pass_time(1)
    await homeless_of(shared.outside, queue, 3)

    home = await at_home(shared.app(), queue)
    await eventually(lambda: len(home.messages) == 3)

    assert sorted(home.payloads) == [0, 1, 2]
    for message, payload in zip(home.messages, home.payloads, strict=True):
        assert (message.message_id, message.headers["a"]) == (f"m{payload}", [1, {"b": None}])
        assert (message.exchange, message.first_exchange, message.first_routing_key) == ("", "", queue)
        assert message.headers["x-first-death-queue"] == delay_name(1)
        assert not {"x-autosell-look", "x-delivery-count", "CC"} & message.headers.keys()
    if shared.kind == "rabbitmq":
        return  # an app of another test, in another process, may have been the one that brought them
    await eventually(lambda: bool(lines(caplog, logging.INFO, queue)))
    assert lines(caplog, logging.INFO, queue) == [f"3 messages came home from {HOMELESS} to '{queue}'"]


async def test_every_property_comes_home(shared: Stage) -> None:
    queue = shared.queue()
    wire: dict[str, object] = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {"x-mine": 1.5, "when": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)},
        "priority": 3,
        "correlation_id": "c",
        "message_id": "m",
        "timestamp": dt.datetime(2030, 1, 2, tzinfo=dt.UTC),
        "type": "order.made",
        "app_id": "shop",
    }
    await homeless(shared, 1, queue, **wire)
    home = await at_home(shared.app(), queue)
    await eventually(lambda: bool(home.messages))

    came = home.messages[0].properties
    headers = {name: came.headers[name] for name in ("x-mine", "when")}
    assert {name: getattr(came, name) for name in wire} | {"headers": headers} == wire
    assert came.persistent


async def test_what_is_still_away_stays_and_is_named(shared: Stage, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs, gone = shared.queue("ours"), shared.queue("theirs"), shared.queue("gone")
    await homeless(shared, MANY, gone)
    await homeless(shared, 2, ours, theirs)
    await shared.outside.declare(Topology(queues=(Queue(name=theirs),)))  # there, with nobody of ours

    home = await at_home(shared.app(), ours)
    await eventually(lambda: len(home.messages) == 2)
    await shared.has(theirs, 2)
    named = gone if shared.kind == "memory" else HOMELESS  # only a few are named, and others may be there
    await eventually(lambda: bool(lines(caplog, logging.WARNING, named)))
    said = lines(caplog, logging.WARNING, named)
    assert len(said) == 1
    assert f"messages stay in {HOMELESS}: their queues are gone" in said[0]
    assert ours not in said[0]
    await homeless_of(shared.outside, gone, MANY)

    back = await at_home(shared.app(), gone)
    await eventually(lambda: len(back.messages) == MANY)
    assert sorted(back.payloads) == list(range(MANY))
    assert not any("x-autosell-look" in message.headers for message in back.messages)


async def test_two_apps_at_once_hide_nothing_from_each_other(shared: Stage) -> None:
    first, second = shared.queue("first"), shared.queue("second")
    await homeless(shared, MANY, first, second)
    homes = await asyncio.gather(at_home(shared.app(), first), at_home(shared.app(), second))

    await eventually(lambda: all(len(home.messages) >= MANY for home in homes))
    for home in homes:
        assert sorted(home.payloads) == list(range(MANY))


async def test_many_apps_that_come_one_after_the_other_find_theirs(shared: Stage) -> None:
    queues = [shared.queue() for _ in range(6)]
    await homeless(shared, 20, *queues)
    homes = [await at_home(shared.app(), queue) for queue in queues]

    await eventually(lambda: all(len(home.messages) == 20 for home in homes))


async def test_a_consumer_that_is_attached_again_looks_again(shared: Stage) -> None:
    queue = await shared.declared({"x-queue-type": "quorum"})
    app = shared.app(backoff=0.05, max_backoff=0.1)
    home = Home()
    app.handler(queue, declare=False)(home)
    await app.start_consuming()
    await shared.delete_queue(queue)
    await eventually(lambda: bool(app.problems))
    await homeless(shared, 3, queue)

    await shared.outside.declare(Topology(queues=(Queue(name=queue),)))
    await eventually(lambda: len(home.messages) == 3)


@pytest.mark.parametrize("found", ["no_queue", "nothing"])
async def test_an_app_starts_where_there_is_nothing_to_look_through(
    memory: MemoryStage, caplog: pytest.LogCaptureFixture, found: str
) -> None:
    app = memory.app()
    queue = memory.queue()
    app.handler(queue, max_retries=0 if found == "no_queue" else 3)(Home())
    await app.start_consuming()
    await memory.outside.depth(queue)
    assert (HOMELESS in memory.server.entities.queues) == (found == "nothing")
    await app.stop_consuming()
    assert not [record for record in caplog.records if "homecoming" in record.name]
