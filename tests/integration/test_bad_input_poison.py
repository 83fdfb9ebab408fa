"""A message that takes its process with it each time never fails: its deliveries are counted."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from autosell_rmq import RabbitMQ
from autosell_rmq.message import DELIVERIES
from tests.integration.bad_input_fixtures import BROKERS, Recorder, Serve, serving
from tests.support.inbox import Inbox

LIMIT = 20


@pytest.fixture(params=BROKERS)
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    async with serving(request.param) as serve:
        yield serve


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_a_message_that_kills_its_process_is_given_up_after_20_deliveries(
    serve: Serve, queue_type: Literal["quorum", "classic"]
) -> None:
    service = await serve(Recorder(), queue_type=queue_type)
    await service.app.stop_consuming()
    # On a classic queue each count takes a second, in the delay line: most of them have happened before.
    already = LIMIT - 3 if queue_type == "classic" else 0
    await service.send(b'"poison"', headers={DELIVERIES: already} if already else {})
    runs = 0

    for _ in range(LIMIT - already):
        broker = await serve.lab.open()
        started, killed = asyncio.Event(), asyncio.Event()

        async def handler(
            payload: str, started: asyncio.Event = started, killed: asyncio.Event = killed
        ) -> None:
            started.set()
            await killed.wait()

        app = RabbitMQ(broker=broker)
        app.handler(service.queue, queue_type=queue_type, prefetch=1)(handler)
        await app.start_consuming()
        await service.until(started.is_set)
        runs += 1
        await broker.close()  # what the queue sees of a process that was killed
        await app.stop_consuming(0)
        await app.close()
    await service.app.start_consuming()

    assert (await service.reply())["error_code"] == "delivery_limit"
    letter = await service.letter()
    record = json.loads(letter.body)
    assert (record["original_body"], record["reason_code"]) == ('"poison"', "delivery_limit")
    assert record["reason"].startswith("Превышено количество доставок: 20 ")
    assert runs == LIMIT - already
    assert await service.leftovers() == (0, 0)


async def test_a_message_that_failed_19_deliveries_gets_its_run(serve: Serve) -> None:
    recorder = Recorder()
    service = await serve(recorder)
    await service.app.stop_consuming()
    inbox = await Inbox.of(serve.outside, service.queue, prefetch=1)

    await service.send(b"1")
    for _ in range(LIMIT - 2):
        await (await inbox.next()).fail()
    last = await inbox.next()
    await inbox.subscription.cancel()
    await last.fail()
    await service.app.start_consuming()

    assert (await service.reply())["data"] == 1
    assert recorder.runs == 1
