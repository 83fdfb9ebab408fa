"""Messages that the delay line finds no home for, and the handlers that they come home to."""

import asyncio

import pytest

from autosell_rmq import Message, RabbitMQ
from autosell_rmq.message import Properties, Publication
from autosell_rmq.topology import delay_hop, delay_name
from tests.integration.app_fixtures import Stage
from tests.support.homeless import homeless_of
from tests.support.publications import send

MANY = 250  # more than one prefetch of the homecoming


class Home:
    """A handler that keeps what comes."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.payloads: list[int] = []

    async def __call__(self, payload: int, message: Message) -> None:
        self.payloads.append(payload)
        self.messages.append(message)


async def homeless(stage: Stage, count: int, *queues: str, **properties: object) -> None:
    """Messages 0, 1, 2 … for each of the queues, which are gone when they would come home."""
    await stage.outside.declare(delay_hop(1))
    wire = Properties(**properties)  # type: ignore[arg-type]
    await asyncio.gather(
        *(
            send(
                stage.outside,
                Publication(body=b"%d" % number, exchange=delay_name(1), routing_key=queue, properties=wire),
            )
            for number in range(count)
            for queue in queues
        )
    )
    await stage.pass_time(1)
    for queue in queues:
        await homeless_of(stage.outside, queue, count)


async def at_home(app: RabbitMQ, *queues: str) -> Home:
    home = Home()
    for queue in queues:
        app.handler(queue)(home)
    await app.start_consuming()
    return home


def lines(caplog: pytest.LogCaptureFixture, level: int, queue: str) -> list[str]:
    """What the homecoming has said of a queue."""
    return [
        record.message
        for record in caplog.records
        if (record.levelno, record.name) == (level, "autosell_rmq.consumer.homecoming")
        and queue in record.message
    ]
