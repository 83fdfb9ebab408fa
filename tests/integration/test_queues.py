"""What a handler may ask of its queue: priorities, one active consumer, arguments, or to take it as it is."""

import pytest

from autosell_rmq import ConfigError, Message, TopologyMismatch
from autosell_rmq.exceptions import QueueNotFound
from tests.integration.app_fixtures import Gate, Stage
from tests.integration.stage_fixtures import RabbitStage
from tests.support.waiting import eventually


class Worker:
    """A handler that says who it is."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.got: list[int] = []

    async def __call__(self, payload: int) -> str:
        self.got.append(payload)
        return self.name


async def test_higher_priorities_come_first_on_a_classic_queue(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    gate = Gate()
    order: list[int] = []

    @app.handler(queue, queue_type="classic", max_priority=5, prefetch=1)
    async def handler(payload: int) -> None:
        await gate()
        order.append(payload)

    await app.start_consuming()
    await app.producer.send_fire_and_forget(queue, -1)
    await gate.has(1)
    for number, priority in enumerate([0, 5, 1, 5, 3, 200]):
        await app.producer.send_fire_and_forget(queue, number, priority=priority)
    await app.producer.send_fire_and_forget(queue, 6)
    await stage.has(queue, 7)
    gate.open()
    await eventually(lambda: len(order) == 8)

    assert order == [-1, 1, 3, 5, 4, 2, 0, 6]


@pytest.mark.rabbitmq
async def test_priorities_on_a_quorum_queue_need_a_newer_server(rabbit: RabbitStage) -> None:
    app = rabbit.app()
    queue = rabbit.queue()
    app.handler(queue, max_priority=5)(Worker())

    with pytest.raises(ConfigError, match=r"RabbitMQ 4\.3 .*queue_type=\"classic\"") as raised:
        await app.start_consuming()
    assert queue in str(raised.value)


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_of_two_single_active_consumers_one_gets_all_until_it_stops(
    stage: Stage, queue_type: str
) -> None:
    queue = stage.queue()
    apps = [stage.app(), stage.app()]
    for number, app in enumerate(apps):
        app.handler(queue, single_active_consumer=True, queue_type=queue_type)(Worker(f"worker {number}"))  # type: ignore[arg-type]
        await app.start_consuming()

    for number in range(10):
        assert (await apps[1].producer.send_message(queue, number))["data"] == "worker 0"
    await apps[0].stop_consuming()
    for number in range(10):
        assert (await apps[1].producer.send_message(queue, number))["data"] == "worker 1"


async def test_without_it_two_consumers_share_the_work(stage: Stage) -> None:
    queue = stage.queue()
    apps = [stage.app(), stage.app()]
    for number, app in enumerate(apps):
        app.handler(queue)(Worker(f"worker {number}"))
        await app.start_consuming()

    names = {(await apps[0].producer.send_message(queue, number))["data"] for number in range(10)}
    assert names == {"worker 0", "worker 1"}


async def test_the_consumer_of_higher_priority_gets_all_while_it_can_take_more(stage: Stage) -> None:
    queue = stage.queue()
    low, high = stage.app(), stage.app()
    gate = Gate()
    second = Worker("low")
    low.handler(queue, consumer_priority=1)(second)

    @high.handler(queue, consumer_priority=10, prefetch=2)
    async def first(payload: int) -> str:
        if payload < 0:
            await gate()
        return "high"

    await low.start_consuming()
    await high.start_consuming()
    for number in range(5):
        assert (await low.producer.send_message(queue, number))["data"] == "high"
    for number in range(-2, 0):
        await low.producer.send_fire_and_forget(queue, number)
    await gate.has(2)  # it has all that it takes
    assert (await low.producer.send_message(queue, 6))["data"] == "low"
    gate.open()


async def test_further_arguments_pass_through_and_win(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    gate = Gate()

    @app.handler(queue, prefetch=1, arguments={"x-max-length": 2, "x-overflow": "drop-head"}, max_retries=0)
    async def handler(payload: int) -> None:
        await gate()

    await app.start_consuming()
    await app.producer.send_fire_and_forget(queue, 0)
    await gate.has(1)
    for number in range(1, 6):
        await app.producer.send_fire_and_forget(queue, number)
    await stage.has(f"{queue}_dlq", 3)
    dropped = {(await stage.letter_message(queue)).body for _ in range(3)}
    assert dropped == {b"1", b"2", b"3"}
    gate.open()


async def test_an_argument_that_no_queue_takes_is_told_in_one_line(stage: Stage) -> None:
    app = stage.app()
    queue = stage.queue()
    app.handler(queue, arguments={"x-max-length": "many"})(Worker())
    with pytest.raises(ConfigError, match="x-max-length") as raised:
        await app.start_consuming()
    assert queue in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("arguments", [{}, {"x-max-length": 100}, {"x-message-ttl": 60_000}])
async def test_declare_false_takes_a_queue_as_it_stands(stage: Stage, arguments: dict[str, object]) -> None:
    queue = await stage.declared(arguments)
    app = stage.app()

    @app.handler(queue, declare=False, max_retries=1)
    async def handler(payload: int, message: Message) -> int:
        if message.attempt == 1:
            raise ValueError(payload)
        return message.attempt

    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    assert (await stage.reply(sent))["data"] == 2


@pytest.mark.parametrize("missing", ["", "_dlq"])
async def test_declare_false_needs_both_queues_and_names_the_missing_one(stage: Stage, missing: str) -> None:
    queue = await stage.declared()
    await stage.delete_queue(f"{queue}{missing}")
    app = stage.app()
    app.handler(queue, declare=False)(Worker())

    with pytest.raises(QueueNotFound, match=f"'{queue}{missing}'"):
        await app.start_consuming()


@pytest.mark.rabbitmq
async def test_a_queue_of_the_original_library_is_refused_with_both_ways_out(rabbit: RabbitStage) -> None:
    queue = await rabbit.declared()
    app = rabbit.app()
    app.handler(queue)(Worker())

    with pytest.raises(TopologyMismatch) as raised:
        await app.start_consuming()
    text = str(raised.value)
    for part in (queue, "x-queue-type", 'queue_type="classic"', "declare=False"):
        assert part in text
    assert "\n" not in text


@pytest.mark.rabbitmq
async def test_another_differing_argument_is_named_with_its_values(rabbit: RabbitStage) -> None:
    queue = rabbit.queue()
    apps = [rabbit.app(), rabbit.app()]
    for app, length in zip(apps, [5, 7], strict=True):
        app.handler(queue, arguments={"x-max-length": length})(Worker())
    await apps[0].start_consuming()

    with pytest.raises(TopologyMismatch, match=r"x-max-length.*'7'.*'5'.*declare=False"):
        await apps[1].start_consuming()


async def test_the_same_declaration_again_is_no_mismatch(stage: Stage) -> None:
    queue = stage.queue()
    apps = [stage.app(), stage.app()]
    for app in apps:
        app.handler(queue, queue_type="classic", max_priority=3, single_active_consumer=True)(Worker("w"))
        await app.start_consuming()
    assert (await apps[1].producer.send_message(queue, 1))["data"] == "w"


async def test_a_dlq_of_another_name_may_be_shared(stage: Stage) -> None:
    dlq = stage.queue("shared")
    app = stage.app(max_retries=0)
    for queue in (stage.queue("a"), stage.queue("b")):

        @app.handler(queue, dlq=dlq)
        async def handler(payload: int) -> None:
            raise ValueError(payload)

    await app.start_consuming()
    for entry in app.handlers:
        await app.producer.send_message(entry.queue, 1)
    await stage.has(dlq, 2)
