"""A message whose handler kills its process each time ends in the DLQ, and its neighbours are handled."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from autosell_rmq.message import DELIVERIES, Properties
from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import Running, running_script
from tests.support.inbox import Inbox
from tests.support.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.rabbitmq, pytest.mark.timeout(120)]

LIMIT = 20  # deliveries
SUSPECT = 10  # from then on one at a time
ALREADY = 18  # of them have happened before the test begins, to keep it short

SCRIPT = """
import asyncio, os
from autosell_rmq import Message, RabbitMQ

rmq = RabbitMQ(queue_type=os.environ["QUEUE_TYPE"])

@rmq.handler(os.environ["QUEUE"], prefetch=5)
async def handle(payload: str, message: Message) -> str:
    if payload == "poison":
        print("killed", flush=True)
        os._exit(9)
    print(payload, flush=True)
    return payload

asyncio.run(rmq.run())
"""


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_a_poison_message_ends_as_a_delivery_limit_and_its_neighbours_are_handled(
    rabbit: RabbitPlace, tmp_path: Path, kind: str
) -> None:
    queue = rabbit.queue()
    env = {"RABBITMQ_URL": rabbit.url, "QUEUE": queue, "QUEUE_TYPE": kind}
    replies = await rabbit.declared("replies")
    kills = 0

    async def run_until_dead_or(over: asyncio.Task[None]) -> bool:
        """One process; whether it was killed by the poison."""
        async with running_script(tmp_path / "worker.py", SCRIPT, env=env) as run:
            ended = asyncio.create_task(run.exit_code())
            await asyncio.wait([ended, over], return_when=asyncio.FIRST_COMPLETED)
            killed = ended.done()
            if not killed:
                run.signal(signal.SIGTERM)  # the letter is there, its ack may not be out yet
            assert await ended == (9 if killed else 0), run.transcript
            assert ("killed" in run.lines) == killed, run.transcript
            return killed

    # A first process declares the queues and goes; then the poison gets its history.
    async with running_script(tmp_path / "worker.py", SCRIPT, env=env):
        await rabbit.is_consumed(queue)
    await eventually(lambda: _consumed_by_nobody(rabbit, queue))
    headers = {DELIVERIES: ALREADY} if kind == "classic" else {}
    await rabbit.put(queue, b'"poison"', Properties(correlation_id="poison", headers=headers))
    if kind == "quorum":
        await _give_back(rabbit, queue, ALREADY)
    for number in range(3):
        wire = Properties(correlation_id=f"good-{number}", reply_to=replies)
        await rabbit.put(queue, json.dumps(number).encode().join([b'"', b'"']), wire)

    inbox = await Inbox.of(rabbit.broker, replies)
    over = asyncio.create_task(_until_all_is_settled(rabbit, f"{queue}_dlq", inbox))
    while await run_until_dead_or(over):
        kills += 1
        assert kills <= LIMIT
    await over

    letter = await rabbit.letter(f"{queue}_dlq")
    assert letter["original_body"] == '"poison"'
    assert letter["correlation_id"] == "poison"
    assert letter["reason_code"] == "delivery_limit"
    assert letter["reason"].startswith("Превышено количество доставок: 20 ")
    # In quarantine it is given back once more before it runs alone; RabbitMQ before 4.3 counts that.
    assert 1 <= kills <= LIMIT - ALREADY
    await rabbit.has(queue, 0)
    await rabbit.has(f"{queue}_dlq", 0)


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_only_the_poison_is_buried_and_its_neighbours_are_handled_once(
    rabbit: RabbitPlace, tmp_path: Path, kind: str
) -> None:
    """All five were in hand at each of ten deaths: in quarantine the guilty one is told from the rest."""
    queue = rabbit.queue()
    env = {"RABBITMQ_URL": rabbit.url, "QUEUE": queue, "QUEUE_TYPE": kind}
    async with running_script(tmp_path / "worker.py", SCRIPT, env=env):
        await rabbit.is_consumed(queue)
    await eventually(lambda: _consumed_by_nobody(rabbit, queue))
    headers = {DELIVERIES: SUSPECT} if kind == "classic" else {}
    payloads = ["good-0", "good-1", "poison", "good-2", "good-3"]
    for payload in payloads:
        body = json.dumps(payload).encode()
        await rabbit.put(queue, body, Properties(correlation_id=payload, headers=headers))
    if kind == "quorum":
        for _ in range(SUSPECT):
            await _give_back_all(rabbit, queue, len(payloads))

    handled: list[str] = []
    lives = 0
    killed = True
    while killed:
        lives += 1
        assert lives <= LIMIT, handled
        async with running_script(tmp_path / "worker.py", SCRIPT, env=env) as run:
            ended = asyncio.create_task(run.exit_code())
            over = asyncio.create_task(_until_settled(rabbit, f"{queue}_dlq", handled, run))
            await asyncio.wait([ended, over], return_when=asyncio.FIRST_COMPLETED)
            killed = ended.done()
            over.cancel()
            if not killed:
                run.signal(signal.SIGTERM)
            assert await ended == (9 if killed else 0), run.transcript
            handled += [line for line in run.lines if line.startswith("good")]

    assert sorted(handled) == ["good-0", "good-1", "good-2", "good-3"]
    letter = await rabbit.letter(f"{queue}_dlq")
    assert (letter["correlation_id"], letter["reason_code"]) == ("poison", "delivery_limit")
    await rabbit.has(queue, 0)
    await rabbit.has(f"{queue}_dlq", 0)


async def _until_settled(rabbit: RabbitPlace, dlq: str, handled: list[str], run: Running) -> None:
    """The poison is buried, and everything good has been handled."""

    async def settled() -> bool:
        return len({*handled, *run.lines} - {"killed"}) == 4 and await rabbit.depth(dlq) > 0

    await eventually(settled, within=60)


async def _give_back_all(rabbit: RabbitPlace, queue: str, messages: int) -> None:
    """A raw client takes all of them and goes, as a process does that is killed."""
    assert rabbit.connection is not None
    channel = await rabbit.connection.channel()
    entity = await channel.get_queue(queue)
    taken = 0
    async with asyncio.timeout(PATIENCE):
        while taken < messages:
            taken += await entity.get(fail=False) is not None
    await channel.close()


async def _consumed_by_nobody(rabbit: RabbitPlace, queue: str) -> bool:
    return await rabbit.consumers(queue) == 0


async def _until_all_is_settled(rabbit: RabbitPlace, dlq: str, inbox: Inbox) -> None:
    """A letter and three answers; one may come twice, when its process was killed before the ack."""
    answers: set[str | None] = set()
    async with asyncio.timeout(90):
        while answers != {"good-0", "good-1", "good-2"}:
            answers.add((await inbox.deliveries.get()).message.correlation_id)
        await eventually(lambda: _is_buried(rabbit, dlq), within=90)


async def _is_buried(rabbit: RabbitPlace, dlq: str) -> bool:
    return await rabbit.depth(dlq) > 0


async def _give_back(rabbit: RabbitPlace, queue: str, times: int) -> None:
    """A raw client takes the message and gives it back, so that the quorum queue counts."""
    assert rabbit.connection is not None
    channel = await rabbit.connection.channel()
    entity = await channel.get_queue(queue)
    given_back = 0
    async with asyncio.timeout(PATIENCE):
        while given_back < times:
            message = await entity.get(fail=False)
            if message is not None:
                assert message.headers.get("x-delivery-count", 0) == given_back
                await message.nack(requeue=True)
                given_back += 1
    await channel.close()
