"""Messages that are worth nothing after a while: a ttl ends their waiting, a deadline their attempts."""

import datetime as dt

import pytest

from autosell_rmq import Message, RetryLater
from autosell_rmq.message import DEADLINE
from autosell_rmq.topology import Queue, Topology
from tests.integration.app_fixtures import Stage
from tests.integration.stage_fixtures import MemoryStage


class Handler:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.messages: list[Message] = []

    async def __call__(self, payload: object, message: Message) -> int:
        self.messages.append(message)
        if self.error is not None:
            raise self.error
        return message.attempt


def at(stage: Stage, seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(stage.outside.now() + seconds, dt.UTC)


async def test_what_waits_longer_than_its_ttl_is_dead_lettered_raw_by_the_broker(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    handler = Handler()
    app.handler(queue)(handler)
    await app.start_consuming()
    await app.stop_consuming()
    await app.producer.send_fire_and_forget(
        queue, {"n": 1}, ttl=0.2, correlation_id="late", headers={"tenant": "kz"}
    )

    letter = await stage.letter_message(queue)
    assert letter.body == b'{"n":1}'
    assert (letter.correlation_id, letter.headers["tenant"]) == ("late", "kz")
    assert letter.headers["x-first-death-reason"] == "expired"
    assert letter.headers["x-first-death-queue"] == queue
    await app.start_consuming()
    await stage.has(queue, 0)
    assert handler.messages == []


async def test_what_comes_in_time_is_handled(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue)(Handler())
    await app.start_consuming()
    reply = await app.producer.send_message(queue, 1, ttl=30, deadline=at(stage, 30))
    assert reply["data"] == 1


async def test_a_message_past_its_deadline_is_not_run(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    handler = Handler()
    app.handler(queue, max_retries=5)(handler)
    await app.start_consuming()
    reply = await app.producer.send_message(queue, 1, deadline=at(stage, -5))

    letter = await stage.letter(queue)
    assert reply["error_code"] == "expired"
    assert reply["error"].startswith("Expired: the deadline was over 5.")
    assert letter["reason"].startswith("Истёк срок обработки сообщения: the deadline was over 5.")
    assert (letter["reason_code"], letter["attempts"]) == ("expired", 0)
    assert handler.messages == []


async def test_a_deadline_ends_the_retries(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(retry_delay=1)
    handler = Handler(ValueError("the bank is closed"))
    app.handler(queue, max_retries=50)(handler)
    await app.start_consuming()
    sent = await stage.ask(queue, 1, headers={DEADLINE: int(at(stage, 1.6).timestamp() * 1000)})

    reply, letter = await stage.reply(sent), await stage.letter(queue)
    assert reply["error_code"] == letter["reason_code"] == "expired"
    assert "the last one failed: the bank is closed" in letter["reason"]
    assert (letter["attempts"], letter["error_type"]) == (2, "ValueError")
    assert [message.attempt for message in handler.messages] == [1, 2]
    assert handler.messages[0].deadline == handler.messages[1].deadline


async def test_a_named_delay_past_the_deadline_ends_the_retries_at_once(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue, max_retries=5)(Handler(RetryLater("tomorrow", delay=86400)))
    await app.start_consuming()
    reply = await app.producer.send_message(queue, 1, deadline=at(stage, 3600))
    assert reply["error_code"] == "expired"
    assert "tomorrow" in reply["error"]


async def test_the_deadline_is_looked_at_when_the_message_is_due(memory: MemoryStage) -> None:
    queue = memory.queue()
    app = memory.app()
    handler = Handler()
    app.handler(queue)(handler)
    await app.start_consuming()
    await app.producer.send_fire_and_forget(queue, 1, delay=10, deadline=at(memory, 5))
    await app.producer.send_fire_and_forget(queue, 2, delay=10, deadline=at(memory, 60))
    await memory.pass_time(12)

    assert [message.body for message in handler.messages] == [b"2"]
    assert (await memory.letter(queue))["reason_code"] == "expired"


async def test_what_remains_of_a_ttl_is_the_copys_deadline(memory: MemoryStage) -> None:
    queue = memory.queue()
    app = memory.app(retry_delay=1, max_retry_delay=4)
    handler = Handler(ValueError("no"))
    app.handler(queue, max_retries=50)(handler)
    await app.start_consuming()
    began = memory.clock.now()
    await app.producer.send_fire_and_forget(queue, 1, ttl=20)
    await memory.pass_time(60)

    first, *rest = handler.messages
    assert (first.properties.expiration, first.deadline) == (20, None)
    # The sender's timestamp has whole seconds, so the deadline may come up to one early.
    for message in rest:
        assert message.properties.expiration is None
        assert message.deadline is not None
        assert began + 19 <= message.deadline.timestamp() <= began + 20.001
    letter = await memory.letter(queue)
    assert (letter["reason_code"], letter["attempts"]) == ("expired", len(handler.messages))
    assert 5 <= len(handler.messages) <= 7


async def test_a_foreign_expiration_without_a_timestamp_counts_from_the_first_failure(
    memory: MemoryStage,
) -> None:
    queue = memory.queue()
    app = memory.app(max_retries=50, max_retry_delay=2)
    handler = Handler(ValueError("no"))
    app.handler(queue)(handler)
    await app.start_consuming()
    began = memory.clock.now()
    await memory.ask(queue, 1, expiration=5.0)
    await memory.pass_time(30)

    deadline = handler.messages[1].deadline
    assert deadline is not None
    assert deadline.timestamp() == pytest.approx(began + 5, abs=0.01)
    assert (await memory.letter(queue))["reason_code"] == "expired"


async def test_a_ttl_of_a_delayed_send_counts_from_its_due_time(memory: MemoryStage) -> None:
    queue = memory.queue()
    app = memory.app()
    handler = Handler()
    app.handler(queue)(handler)
    await app.start_consuming()
    began = memory.clock.now()
    await app.producer.send_fire_and_forget(queue, 1, delay=10, ttl=5)
    await memory.pass_time(12)

    deadline = handler.messages[0].deadline
    assert deadline is not None
    assert deadline.timestamp() == pytest.approx(began + 15, abs=0.01)


@pytest.mark.parametrize("forged", ["soon", -1, 2**62, 1.5, True, None, 0])
async def test_a_forged_deadline_is_none_or_far(memory: MemoryStage, forged: object) -> None:
    queue = memory.queue()
    app = memory.app()
    app.handler(queue)(Handler())
    await app.start_consuming()
    sent = await memory.ask(queue, 1, headers={DEADLINE: forged})
    assert (await memory.reply(sent))["data"] == 1


async def test_a_queue_whose_own_ttl_runs_out_dead_letters_raw(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue, arguments={"x-message-ttl": 200})(Handler())
    await app.start_consuming()
    await app.stop_consuming()
    await stage.ask(queue, {"n": 1})
    assert (await stage.letter_message(queue)).body == b'{"n": 1}'


async def test_a_plain_queue_with_a_ttl_works_beside_the_delay_line(stage: Stage) -> None:
    queue = stage.queue()
    await stage.outside.declare(Topology(queues=(Queue(name=queue), Queue(name=f"{queue}_dlq"))))
    app = stage.app()
    handler = Handler(ValueError("no"))
    app.handler(queue, declare=False, max_retries=1)(handler)
    await app.start_consuming()
    reply = await stage.reply(await stage.ask(queue, 1, expiration=10.0))
    assert reply["error_code"] == "max_retries_exceeded"
    assert len(handler.messages) == 2
