"""Moving over from 0.1.4: the queues that it declared and left full, and what either version may declare."""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from autosell_rmq import (
    Message,
    QueueNotFound,
    RabbitMQ,
    RabbitMQConsumer,
    RabbitMQProducer,
    TopologyMismatch,
)
from autosell_rmq.codec import restore
from autosell_rmq.config import HandlerKwargs
from autosell_rmq.exceptions import DecodeError
from tests.acceptance.migration_fixtures import (
    RETRY_OF_OLD,
    OldError,
    OldService,
    delete,
    depth,
    exists,
    old_python,
    old_service,
    publish,
    take,
    take_letter,
)
from tests.support.names import unique
from tests.support.services import RABBITMQ_URL
from tests.support.waiting import eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.rabbitmq, pytest.mark.timeout(150)]

AS_IT_STANDS: HandlerKwargs = {"declare": False}
# What 0.1.4 declares, word for word.
LIKE_THE_OLD: HandlerKwargs = {"queue_type": "classic", "arguments": {"x-message-ttl": 300_000}}


@pytest.fixture(scope="session")
def python_014(request: pytest.FixtureRequest) -> Path:
    cache = request.config.cache
    assert cache is not None
    return old_python(cache.mkdir("autosell-rmq-0.1.4") / "venv")


@pytest.fixture
async def old(python_014: Path) -> AsyncIterator[OldService]:
    async with old_service(python_014) as service:
        yield service


@pytest.fixture
async def queue() -> AsyncIterator[str]:
    name = unique("moving")
    yield name
    delete(name)


@pytest.fixture
async def left(old: OldService, queue: str) -> str:
    """The queues of 0.1.4, declared by its consumer, which is gone."""
    await old.consume(queue)
    await old("stop_consuming")
    return queue


@pytest.fixture
async def app() -> AsyncIterator[RabbitMQ]:
    async with RabbitMQ(RABBITMQ_URL, retry_delay=0.5, max_retries=3) as app:
        yield app


class Ours:
    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.messages: list[Message] = []

    async def __call__(self, data: dict[str, Any], message: Message) -> dict[str, Any]:
        self.messages.append(message)
        if self.fails:
            raise ValueError("boom")
        return {"by": "1.0", "n": data["n"]}


# --- left full -------------------------------------------------------------------------------------


async def test_what_waits_in_the_old_queue_is_handled(left: str, old: OldService, app: RabbitMQ) -> None:
    asked = [asyncio.create_task(old("send", queue=left, data={"n": n})) for n in range(5)]
    await eventually(lambda: depth(left) == 5)
    ours = Ours()
    app.handler(left, **AS_IT_STANDS)(ours)

    await app.start_consuming()

    replies = await asyncio.gather(*asked)
    assert [reply["data"]["n"] for reply in replies] == list(range(5))
    assert {message.attempt for message in ours.messages} == {1}
    assert (depth(left), depth(f"{left}_dlq")) == (0, 0)


async def test_what_waits_for_a_retry_of_the_old_one_comes_to_ours_with_its_count(
    queue: str, old: OldService, app: RabbitMQ
) -> None:
    await old.consume(queue)
    asked = asyncio.create_task(old("send", queue=queue, data={"n": 1, "fail": True}, correlation_id="c-1"))
    await eventually(lambda: depth(f"{queue}.retry.temp") == 1)
    await old("stop_consuming")
    ours = Ours()
    app.handler(queue, **AS_IT_STANDS)(ours)
    await app.start_consuming()

    reply = await asked

    assert reply == {"success": True, "data": {"by": "1.0", "n": 1}, "correlation_id": "c-1"}
    [message] = ours.messages
    assert (message.attempt, message.headers["x-retry-count"]) == (2, 1)
    assert depth(f"{queue}.retry.temp") == 0


@pytest.mark.parametrize(("count", "attempts"), [(2, [3, 4]), (3, [4]), (99, [4]), (-5, [1, 2, 3, 4])])
async def test_a_count_of_the_old_one_is_taken_up_to_the_last_attempt(
    left: str, app: RabbitMQ, count: int, attempts: list[int]
) -> None:
    ours = Ours(fails=True)
    app.handler(left, declare=False, retry_delay=0.5, max_retry_delay=0.5)(ours)
    await app.start_consuming()

    publish(left, b'{"n": 1}', headers={"x-retry-count": count}, correlation_id="c-1")

    await eventually(lambda: depth(f"{left}_dlq") == 1)
    assert [message.attempt for message in ours.messages] == attempts
    assert take_letter(f"{left}_dlq").reason_code == "max_retries_exceeded"


async def test_the_letters_of_both_in_one_dlq_are_restored_and_raw_ones_told_apart(
    left: str, old: OldService, app: RabbitMQ
) -> None:
    dlq = f"{left}_dlq"
    await old.consume(left, max_retries=0)
    await old("send", queue=left, data={"n": 1, "fail": True, "city": "Алматы"}, correlation_id="c-1")
    await eventually(lambda: depth(dlq) == 1)
    await old("stop_consuming")
    app.handler(left, declare=False, max_retries=0)(Ours(fails=True))
    await app.start_consuming()
    await old("send", queue=left, data={"n": 2}, correlation_id="c-2")
    await eventually(lambda: depth(dlq) == 2)
    publish(dlq, b'{"n": 3}', headers={"x-death": [{"reason": "expired", "queue": left, "count": 1}]})

    theirs, ours, raw = (take(dlq) for _ in range(3))

    by_old, by_ours = restore(theirs[1]), restore(ours[1])
    assert json.loads(by_old.body) == {"n": 1, "fail": True, "city": "Алматы"}
    assert json.loads(by_ours.body) == {"n": 2}
    assert (by_old.queue, by_ours.queue) == (left, left)
    assert (by_old.properties.correlation_id, by_ours.properties.correlation_id) == ("c-1", "c-2")
    assert by_old.reason == "Превышено максимальное количество попыток: Ошибка обработки сообщения: boom"
    assert by_ours.reason == "Необработанное исключение в обработчике: boom"
    assert (by_old.reason_code, by_ours.reason_code) == (None, "unhandled_exception")
    failed_at = [dt.datetime.fromisoformat(json.loads(body)["failed_at"]) for _, body in (theirs, ours)]
    assert [moment.tzinfo is not None for moment in failed_at] == [False, True]
    assert all(properties.headers["x-death-reason"] for properties, _ in (theirs, ours))
    with pytest.raises(DecodeError, match="original_body is missing"):
        restore(raw[1])


async def test_all_of_it_at_once(queue: str, old: OldService, app: RabbitMQ) -> None:
    """Waiting, in its retry, in the DLQ: every id ends in one reply or one letter."""
    await old.consume(queue)
    retrying = [
        asyncio.create_task(old("send", queue=queue, data={"n": n, "fail": True}, correlation_id=f"r-{n}"))
        for n in range(10)
    ]
    await eventually(lambda: depth(f"{queue}.retry.temp") == 10)
    await old("stop_consuming")
    waiting = [
        asyncio.create_task(old("send", queue=queue, data={"n": n}, correlation_id=f"w-{n}"))
        for n in range(10)
    ]
    await eventually(lambda: depth(queue) >= 10)
    ours = Ours()
    app.handler(queue, **AS_IT_STANDS)(ours)

    await app.start_consuming()

    replies = await asyncio.gather(*retrying, *waiting)
    assert {reply["correlation_id"] for reply in replies} == {
        f"{kind}-{n}" for kind in "rw" for n in range(10)
    }
    assert all(reply["success"] for reply in replies)
    assert len(ours.messages) == 20
    assert [depth(name) for name in (queue, f"{queue}_dlq", f"{queue}.retry.temp")] == [0, 0, 0]


# --- who may declare what --------------------------------------------------------------------------


async def test_ours_tells_what_differs_and_how_to_take_the_old_queues(left: str, app: RabbitMQ) -> None:
    app.handler(left)(Ours())

    with pytest.raises(TopologyMismatch) as told:
        await app.start_consuming()

    said = str(told.value)
    assert f"'{left}_dlq' exists with other arguments" in said
    assert "x-queue-type" in said
    assert "declare=False" in said
    assert 'queue_type="classic"' in said
    assert "\n" not in said


async def test_a_classic_queue_without_the_old_ttl_is_refused_by_name(left: str, app: RabbitMQ) -> None:
    app.handler(left, queue_type="classic")(Ours())

    with pytest.raises(TopologyMismatch, match=r"x-message-ttl.*declare=False") as told:
        await app.start_consuming()

    assert f"'{left}' exists with other arguments" in str(told.value)


@pytest.mark.parametrize("options", [AS_IT_STANDS, LIKE_THE_OLD], ids=["declare=False", "like the old"])
async def test_ours_takes_the_old_queues_and_the_old_one_starts_again_beside_it(
    left: str, old: OldService, app: RabbitMQ, options: HandlerKwargs
) -> None:
    app.handler(left, **options)(Ours())
    await app.start_consuming()
    assert (await old("send", queue=left, data={"n": 1}))["data"]["by"] == "1.0"

    await old.consume(left)  # a restart of the old one: it declares again
    await app.stop_consuming()

    assert (await old("send", queue=left, data={"n": 2}))["data"]["by"] == "0.1.4"


async def test_the_old_one_starts_on_queues_that_ours_declared_like_it(
    queue: str, old: OldService, app: RabbitMQ
) -> None:
    app.handler(queue, **LIKE_THE_OLD)(Ours())
    await app.start_consuming()
    assert not exists(f"{queue}.retry.temp")

    await old.consume(queue)
    await app.stop_consuming()

    assert (await old("send", queue=queue, data={"n": 1}))["data"]["by"] == "0.1.4"


async def test_the_old_one_does_not_start_on_queues_of_our_own_kind(
    queue: str, old: OldService, app: RabbitMQ
) -> None:
    """Which is why quorum queues come last: there is no way back from them but to delete them."""
    app.handler(queue)(Ours())
    await app.start_consuming()

    with pytest.raises(OldError, match="PRECONDITION_FAILED"):
        await old.consume(queue)


async def test_at_the_end_the_empty_queues_are_deleted_and_ours_declares_its_own(
    left: str, old: OldService, app: RabbitMQ
) -> None:
    assert [depth(name) for name in (left, f"{left}_dlq", f"{left}.retry.temp")] == [0, 0, 0]
    delete(left)
    app.handler(left)(Ours())

    await app.start_consuming()

    assert (await old("send", queue=left, data={"n": 1}))["data"]["by"] == "1.0"


async def test_a_consumer_that_named_no_dlq_has_to_name_the_old_default(left: str) -> None:
    """0.1.4 called it ``dlq_queue`` whatever the queue; ours is ``<queue>_dlq`` once a queue is named."""
    assert RabbitMQConsumer(RABBITMQ_URL, left).dlq_name == f"{left}_dlq"
    assert RabbitMQConsumer(RABBITMQ_URL).dlq_name == "dlq_queue"
    consumer = RabbitMQConsumer(RABBITMQ_URL, left, unique("no_such_dlq"), declare=False)

    with pytest.raises(QueueNotFound, match="no_such_dlq"):
        await consumer.start_consuming()
    await consumer.close()


async def test_five_seconds_after_the_last_old_consumer_its_retry_queue_is_empty(
    queue: str, old: OldService
) -> None:
    """So a process of ours that starts later finds everything in the work queue itself."""
    await old.consume(queue)
    async with RabbitMQProducer(RABBITMQ_URL) as producer:
        for n in range(3):
            await producer.send_fire_and_forget(queue, {"n": n, "fail": True})
        await eventually(lambda: depth(f"{queue}.retry.temp") == 3)
    await old("stop_consuming")

    await eventually(lambda: depth(queue) == 3, within=RETRY_OF_OLD + 5)
    assert depth(f"{queue}.retry.temp") == 0
