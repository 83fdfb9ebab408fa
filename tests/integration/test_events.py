"""Events: queues bound to exchanges, wildcards, nobody listening, and what makes two events the same."""

import asyncio
from typing import Literal

import pytest

from autosell_rmq import Binding, ConfigError, Message, PublishUnroutable, RabbitMQ, TopologyMismatch
from autosell_rmq.topology import Queue, QueueBinding, Topology
from tests.integration.app_fixtures import Stage


class Listener:
    """A handler that remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.messages: list[Message] = []

    async def __call__(self, payload: object, message: Message) -> None:
        self.heard.append(payload)
        self.messages.append(message)


def listen(app: RabbitMQ, stage: Stage, *bind: Binding) -> Listener:
    listener = Listener()
    app.handler(stage.queue("events"), bind=bind)(listener)
    return listener


async def test_every_bound_queue_gets_its_own_copy(stage: Stage) -> None:
    exchange = stage.exchange()
    app = stage.app()
    billing = listen(app, stage, Binding(exchange, "order.*"))
    stock = listen(app, stage, Binding(exchange, "order.created"))
    everything = listen(app, stage, Binding(exchange))
    await app.start_consuming()

    for key in ("order.created", "order.paid", "order.paid.late", "user.created"):
        await app.producer.publish_to_exchange(exchange, key, key)
    await stage.until(lambda: len(everything.heard) == 4)

    assert billing.heard == ["order.created", "order.paid"]
    assert stock.heard == ["order.created"]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("order.*", {"order.created"}),
        ("order.#", {"order", "order.created", "order.created.eu"}),
        ("#.created", {"order.created", "user.created"}),
        ("*.*.eu", {"order.created.eu"}),
        ("#", {"order", "order.created", "order.created.eu", "user.created", ""}),
        ("", {""}),
    ],
)
async def test_topic_wildcards(stage: Stage, pattern: str, matching: set[str]) -> None:
    exchange = stage.exchange()
    app = stage.app()
    listener = listen(app, stage, Binding(exchange, pattern))
    await app.start_consuming()
    for key in ("order", "order.created", "order.created.eu", "user.created", ""):
        await app.producer.publish_to_exchange(exchange, key, key, mandatory=False)

    await stage.until(lambda: len(listener.heard) >= len(matching))
    await app.stop_consuming()
    assert set(listener.heard) == matching


async def test_several_bindings_of_one_handler(stage: Stage) -> None:
    orders, users = stage.exchange(), stage.exchange()
    app = stage.app()
    listener = listen(
        app, stage, Binding(orders, "order.created"), Binding(orders, "order.*"), Binding(users, "user.*")
    )
    await app.start_consuming()
    await app.producer.publish_to_exchange(orders, "order.created", 1)
    await app.producer.publish_to_exchange(users, "user.created", 2)

    await stage.until(lambda: len(listener.heard) == 2)
    await app.stop_consuming()
    assert sorted(map(str, listener.heard)) == ["1", "2"]  # two matching bindings make one copy


@pytest.mark.parametrize(
    ("kind", "binding_key", "arguments", "heard"),
    [
        ("direct", "order.created", {}, ["order.created"]),
        ("fanout", "ignored", {}, ["order.created", "other"]),
        ("headers", "", {"x-match": "all", "kind": "order.created"}, ["order.created"]),
    ],
)
async def test_the_other_types_of_exchange(
    stage: Stage,
    kind: Literal["direct", "fanout", "headers"],
    binding_key: str,
    arguments: dict[str, object],
    heard: list[str],
) -> None:
    exchange = stage.exchange()
    app = stage.app()
    listener = listen(app, stage, Binding(exchange, binding_key, exchange_type=kind, arguments=arguments))
    await app.start_consuming()
    for key in ("order.created", "other"):
        await app.producer.publish_to_exchange(
            exchange, key, key, exchange_type=kind, headers={"kind": key}, mandatory=False
        )
    await stage.until(lambda: len(listener.heard) >= len(heard))
    await app.stop_consuming()
    assert listener.heard == heard


async def test_an_event_that_nobody_listens_for_is_unroutable_unless_that_is_allowed(stage: Stage) -> None:
    exchange = stage.exchange()
    producer = stage.producer()

    with pytest.raises(PublishUnroutable, match=rf"{exchange}.*order\.created"):
        await producer.publish_to_exchange(exchange, "order.created", 1)
    sent_as = await producer.publish_to_exchange(
        exchange, "order.created", 1, mandatory=False, correlation_id="flow"
    )
    assert sent_as == "flow"


async def test_a_deleted_exchange_is_declared_again(stage: Stage) -> None:
    exchange = stage.exchange()
    queue = await stage.declared()
    binding = Topology(bindings=(QueueBinding(queue=queue, exchange=exchange, routing_key="#"),))
    producer = stage.producer()
    await producer.publish_to_exchange(exchange, "a", 1, mandatory=False)
    await stage.delete_exchange(exchange)

    with pytest.raises(PublishUnroutable):
        await producer.publish_to_exchange(exchange, "a", 2)
    await producer.publish_to_exchange(exchange, "a", 3, mandatory=False)
    await stage.outside.declare(binding)
    await producer.publish_to_exchange(exchange, "a", 4)
    await stage.has(queue, 1)


async def test_an_exchange_of_another_type_is_a_mismatch(stage: Stage) -> None:
    exchange = stage.exchange()
    producer = stage.producer()
    await producer.publish_to_exchange(exchange, "a", 1, exchange_type="fanout", mandatory=False)

    with pytest.raises(TopologyMismatch, match=f"'{exchange}'.*'type'|'type'.*'{exchange}'"):
        await stage.producer().publish_to_exchange(exchange, "a", 1, mandatory=False)
    with pytest.raises(ConfigError, match="exchange_type='x-random'"):
        await producer.publish_to_exchange(exchange, "a", 1, exchange_type="x-random")
    app = stage.app()
    listen(app, stage, Binding(exchange, exchange_type="direct"))
    with pytest.raises(TopologyMismatch, match=exchange):
        await app.start_consuming()


async def test_events_of_one_flow_are_all_handled(stage: Stage) -> None:
    exchange = stage.exchange()
    app = stage.app()
    listener = listen(app, stage, Binding(exchange))
    await app.start_consuming()
    for number in range(3):
        await app.producer.publish_to_exchange(exchange, "order.paid", number, correlation_id="flow")

    await stage.until(lambda: len(listener.heard) == 3)
    assert {message.correlation_id for message in listener.messages} == {"flow"}
    assert len({message.idempotency_key for message in listener.messages}) == 3
    assert app.statistics.duplicates == 0


async def test_an_event_published_twice_under_one_message_id_is_handled_once(stage: Stage) -> None:
    exchange = stage.exchange()
    app = stage.app()
    listener = listen(app, stage, Binding(exchange))
    other = listen(app, stage, Binding(exchange))
    await app.start_consuming()
    for _ in range(3):
        await app.producer.publish_to_exchange(exchange, "order.paid", 1, message_id="event-1")

    await stage.until(lambda: app.statistics.duplicates == 4)
    assert (listener.heard, other.heard) == ([1], [1])  # each queue by itself


async def test_one_queue_may_take_requests_and_events(stage: Stage) -> None:
    exchange = stage.exchange()
    app = stage.app()
    queue = stage.queue()

    @app.handler(queue, bind=Binding(exchange, "order.*"))
    async def both(payload: int) -> int:
        return payload * 2

    await app.start_consuming()
    await app.producer.publish_to_exchange(exchange, "order.created", 1)
    assert (await app.producer.send_message(queue, 2))["data"] == 4
    await stage.until(lambda: app.statistics.handled == 2)


async def test_an_event_may_be_confirmed_by_many_at_once(stage: Stage) -> None:
    exchange = stage.exchange()
    app = stage.app()
    listener = listen(app, stage, Binding(exchange))
    await app.start_consuming()
    await asyncio.gather(*(app.producer.publish_to_exchange(exchange, "n", n) for n in range(200)))
    await stage.until(lambda: len(listener.heard) == 200)
    assert set(listener.heard) == set(range(200))


async def test_a_failing_listener_retries_alone(stage: Stage) -> None:
    exchange = stage.exchange()
    app = stage.app()
    healthy = listen(app, stage, Binding(exchange))
    attempts: list[int] = []

    @app.handler(stage.queue("failing"), bind=Binding(exchange), max_retries=1)
    async def failing(payload: int, message: Message) -> None:
        attempts.append(message.attempt)
        if message.attempt == 1:
            raise ValueError(payload)

    await app.start_consuming()
    await app.producer.publish_to_exchange(exchange, "order.created", 1)
    await stage.until(lambda: attempts == [1, 2])
    assert healthy.heard == [1]


async def test_a_binding_to_an_existing_queue_is_added(stage: Stage) -> None:
    queue = stage.queue()
    exchange = stage.exchange()
    dlq = Queue(name=f"{queue}_dlq")
    await stage.outside.declare(Topology(queues=(dlq, Queue(name=queue))))
    app = stage.app()
    listener = Listener()
    app.handler(queue, declare=False, bind=Binding(exchange))(listener)
    await app.start_consuming()
    await app.producer.publish_to_exchange(exchange, "a", 1)
    await stage.until(lambda: listener.heard == [1])
