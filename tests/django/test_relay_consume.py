"""The relay where it lives: inside ``manage.py rmq_consume``."""

import json
import signal

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction

from autosell_rmq_django.publishing import producer
from tests.django.command_fixtures import Shop, shop
from tests.django.outbox_fixtures import unsent
from tests.support.waiting import eventually

__all__ = ["shop"]

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.rabbitmq,
    pytest.mark.timeout(90),
    pytest.mark.django_db(transaction=True, databases=("default", "other")),
]


@sync_to_async
def write(queue: str, data: object) -> None:
    try:
        with transaction.atomic():
            producer.send_on_commit(queue, data, outbox=True)
    finally:
        connections.close_all()


@sync_to_async
def waiting() -> int:
    try:
        return len(unsent())
    finally:
        connections.close_all()


async def nothing_waits() -> bool:
    return await waiting() == 0


async def test_the_command_sends_what_waits_in_the_outbox(shop: Shop) -> None:
    queue = await shop.place.declared("outbox")
    await write(queue, "written before")

    async with shop.consuming("--no-reload") as process:
        assert json.loads((await shop.place.take(queue)).body) == "written before"
        await write(queue, "written meanwhile")
        assert json.loads((await shop.place.take(queue)).body) == "written meanwhile"
        await eventually(nothing_waits)
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0, process.transcript


async def test_the_setting_turns_it_off(shop: Shop) -> None:
    queue = await shop.place.declared("outbox")
    await write(queue, "kept")

    async with shop.consuming("--no-reload", setting={"OUTBOX": {"RELAY": False}}) as process:
        await shop.send("sync", key="a")
        await shop.has_effects("a")
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0, process.transcript

    assert await waiting() == 1
