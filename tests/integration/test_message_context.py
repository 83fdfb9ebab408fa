"""The context that a handler gets: where its message came from, which attempt it is, a producer."""

import datetime as dt
from collections.abc import Mapping

import pytest

from autosell_rmq import Binding, ClosedError, Message, Next
from autosell_rmq.config import HOME
from tests.integration.app_fixtures import Stage


class Failing:
    """A handler that keeps its messages and fails the first `failures` times."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.messages: list[Message] = []

    async def __call__(self, payload: object, message: Message) -> int:
        self.messages.append(message)
        if len(self.messages) <= self.failures:
            raise ValueError(f"failure {len(self.messages)}")
        return message.attempt

    @property
    def last(self) -> Message:
        return self.messages[-1]


async def test_attempts_count_from_one_and_everything_else_stays(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(retry_delay=1)
    handler = Failing(2)
    app.handler(queue)(handler)
    await app.start_consuming()
    sent_at = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
    headers: Mapping[str, object] = {"tenant": "kz", "n": 5, "nested": {"a": [1, "b"]}}
    sent = await stage.ask(
        queue,
        {"n": 1},
        headers=headers,
        message_id="message-1",
        timestamp=sent_at,
        type="order",
        app_id="shop",
        priority=3,
        content_type="application/json",
    )

    assert (await stage.reply(sent))["data"] == 3
    first, _, last = handler.messages
    assert [message.attempt for message in handler.messages] == [1, 2, 3]
    assert len({message.idempotency_key for message in handler.messages}) == 1
    assert first.idempotency_key is not None
    assert len(first.idempotency_key) == 64
    for message in handler.messages:
        assert (message.queue, message.body) == (queue, b'{"n": 1}')
        assert (message.correlation_id, message.message_id) == (sent, "message-1")
        assert (message.first_exchange, message.first_routing_key) == ("", queue)
        assert {name: message.headers[name] for name in headers} == headers
        wire = message.properties
        assert (wire.timestamp, wire.type, wire.app_id, wire.priority) == (sent_at, "order", "shop", 3)
        assert wire.persistent
    assert last.headers["x-retry-count"] == 2
    assert not any(name.startswith(("x-death", "x-first-death")) for name in first.headers)


async def test_an_events_exchange_and_routing_key_are_known_after_retries(stage: Stage) -> None:
    queue, exchange = stage.queue(), stage.exchange()
    app = stage.app()
    handler = Failing(1)
    app.handler(queue, bind=Binding(exchange, "order.*"))(handler)
    await app.start_consuming()
    await app.producer.publish_to_exchange(exchange, "order.created", {"n": 1})

    await stage.until(lambda: len(handler.messages) == 2)
    first, second = handler.messages
    assert (first.exchange, first.routing_key) == (exchange, "order.created")
    assert (second.exchange, second.routing_key) == (HOME, queue)
    assert (second.first_exchange, second.first_routing_key) == (exchange, "order.created")


async def test_deadline_and_due_are_aware_moments(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    handler = Failing()
    app.handler(queue)(handler)
    await app.start_consuming()
    deadline = dt.datetime.now(dt.UTC).replace(microsecond=5000) + dt.timedelta(hours=1)
    await app.producer.send_fire_and_forget(queue, 1, deadline=deadline, delay=1)
    await stage.until(lambda: bool(handler.messages))

    assert handler.last.deadline == deadline
    assert handler.last.due is not None
    assert handler.last.due.tzinfo is dt.UTC

    await app.producer.send_fire_and_forget(queue, 2)
    await stage.until(lambda: len(handler.messages) == 2)
    context = handler.messages[-1]
    assert (context.deadline, context.due) == (None, None)


async def test_forged_counts_are_clamped(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    handler = Failing(100)
    app.handler(queue, max_retries=2)(handler)
    await app.start_consuming()
    forged: list[object] = [2**62, -5, "NaN", "1e9", {"a": 1}, True, None, "1", 10**9]
    for number, count in enumerate(forged):
        headers = {"x-retry-count": count, "x-autosell-attempt": count}
        await stage.ask(queue, number, headers=headers, correlation_id=f"forged-{number}")

    first: dict[str, int] = {}
    for number in range(len(forged)):
        reply = await stage.reply(f"forged-{number}")
        assert reply["error_code"] == "max_retries_exceeded"
    for message in handler.messages:
        first.setdefault(message.correlation_id or "", message.attempt)
    assert [first[f"forged-{n}"] for n in range(len(forged))] == [3, 1, 1, 1, 1, 1, 1, 2, 3]
    assert {message.attempt for message in handler.messages} == {1, 2, 3}


async def test_an_async_handler_publishes_by_the_messages_producer(stage: Stage) -> None:
    front, back, exchange = stage.queue("front"), stage.queue("back"), stage.exchange()
    app = stage.app()
    heard = Failing()

    @app.handler(front)
    async def front_handler(payload: int, message: Message) -> object:
        assert message.producer is not None
        await message.producer.publish_to_exchange(
            exchange, "order.created", payload, correlation_id=message.correlation_id
        )
        reply = await message.producer.send_message(back, payload)
        return reply["data"]

    @app.handler(back)
    async def back_handler(payload: int) -> int:
        return payload * 2

    events = stage.queue("events")
    app.handler(events, bind=Binding(exchange))(heard)
    await app.start_consuming()

    reply = await app.producer.send_message(front, 4, correlation_id="flow")
    assert reply["data"] == 8
    await stage.until(lambda: bool(heard.messages))
    assert heard.last.correlation_id == "flow"


async def test_a_sync_handler_publishes_by_the_messages_sync_producer(stage: Stage) -> None:
    front, back, exchange = stage.queue("front"), stage.queue("back"), stage.exchange()
    app = stage.app(threads=2)
    heard = Failing()

    @app.handler(front)
    def front_handler(payload: int, message: Message) -> object:
        assert message.sync_producer is not None
        message.sync_producer.publish_to_exchange(exchange, "order.created", payload)
        sent_as = message.sync_producer.send_fire_and_forget(back, payload, correlation_id="told")
        reply = message.sync_producer.send_message(back, payload)
        return [sent_as, reply["data"]]

    @app.handler(back)
    def back_handler(payload: int) -> int:
        return payload * 2

    app.handler(stage.queue("events"), bind=Binding(exchange))(heard)
    await app.start_consuming()

    assert (await app.producer.send_message(front, 4))["data"] == ["told", 8]
    await stage.until(lambda: bool(heard.messages))


async def test_the_sync_producer_refuses_to_block_the_event_loop(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()

    @app.handler(queue)
    async def handler(payload: int, message: Message) -> str:
        assert message.sync_producer is not None
        with pytest.raises(ClosedError, match="event loop") as raised:
            message.sync_producer.send_fire_and_forget(queue, 1)
        return str(raised.value)

    await app.start_consuming()
    assert "async producer" in (await app.producer.send_message(queue, 1))["data"]


async def test_a_message_from_anybody_may_carry_nothing(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    handler = Failing(1)
    app.handler(queue)(handler)
    await app.start_consuming()
    await stage.send_bare(queue, b"1")

    await stage.until(lambda: len(handler.messages) == 2)
    first, second = handler.messages
    assert (first.message_id, first.correlation_id, first.idempotency_key) == (None, None, None)
    assert second.message_id is not None  # a copy gets one, and keeps it from there on
    assert second.correlation_id is None
    assert second.headers["x-retry-count"] == 1


async def test_a_middleware_sees_what_a_handler_would_that_does_not_ask_for_it(stage: Stage) -> None:
    seen: list[Message] = []

    async def note(message: Message, call_next: Next) -> object:
        seen.append(message)
        return await call_next(message)

    queue = stage.queue()
    app = stage.app(middleware=[note])

    @app.handler(queue)
    async def handle(payload: int) -> int:
        return payload

    await app.start_consuming()
    await stage.reply(await stage.ask(queue, 1))

    assert seen[0].idempotency_key is not None
    assert seen[0].producer is app.producer
