"""A queue that exists with other arguments: the error names the setting that mends it, and it does."""

import re
from typing import Any

import pytest

from autosell_rmq import Binding, TopologyMismatch
from autosell_rmq.config import HandlerOptions, Settings
from autosell_rmq.topology import Exchange, Queue, Topology, of_handler
from tests.integration.stage_fixtures import RabbitStage

pytestmark = pytest.mark.rabbitmq

CLASSIC = {"queue_type": "classic", "max_retries": 0}


async def handler(payload: int) -> None: ...


async def refusal(rabbit: RabbitStage, queue: str, **options: Any) -> str:  # noqa: ANN401 - a handler's
    """What a start says."""
    app = rabbit.app()
    app.handler(queue, **options)(handler)
    with pytest.raises(TopologyMismatch) as raised:
        await app.start_consuming()
    said = str(raised.value)
    assert "\n" not in said
    return said


def as_declared(queue: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """The arguments with which a handler declares its queue."""
    complete = HandlerOptions.resolve(queue, Settings(), **options)
    return dict(next(each for each in of_handler(complete).queues if each.name == queue).arguments)


@pytest.mark.parametrize(
    ("theirs", "options", "advice"),
    [
        ({"x-max-length": 11}, {}, 'arguments={"x-max-length": 11}'),
        ({"x-max-length": 11}, {"arguments": {"x-max-length": 10}}, 'arguments={"x-max-length": 11}'),
        ({"x-message-ttl": 60_000}, {}, 'arguments={"x-message-ttl": 60000}'),
        ({"x-overflow": "reject-publish"}, {}, 'arguments={"x-overflow": "reject-publish"}'),
        (
            {"x-dead-letter-exchange": "amq.topic"},
            {},
            'arguments={"x-dead-letter-exchange": "amq.topic"}',
        ),
        ({"x-dead-letter-routing-key": "a"}, {}, 'arguments={"x-dead-letter-routing-key": "a"}'),
        ({"x-max-priority": 7}, {}, "max_priority=7"),
        ({"x-max-priority": 7}, {"max_priority": 5}, "max_priority=7"),
        ({}, {"max_priority": 5}, "max_priority=None"),
        ({}, {"single_active_consumer": True}, "single_active_consumer=False"),
        ({"x-single-active-consumer": True}, {}, "single_active_consumer=True"),
        (
            {"x-single-active-consumer": False},
            {"single_active_consumer": True},
            'arguments={"x-single-active-consumer": False}',
        ),
    ],
)
async def test_the_setting_that_the_error_names_mends_it(
    rabbit: RabbitStage, theirs: dict[str, Any], options: dict[str, Any], advice: str
) -> None:
    queue = rabbit.queue()
    there = Queue(name=queue, arguments=as_declared(queue, **CLASSIC) | theirs)
    await rabbit.outside.declare(Topology(queues=(there,)))

    said = await refusal(rabbit, queue, **CLASSIC | options)
    named = re.search(r"declare it as it is with (.+?) on its handler", said)
    assert named is not None, said
    assert named[1] == advice
    mended = eval(f"dict({named[1]})")  # as the reader would copy it
    app = rabbit.app()
    app.handler(queue, **CLASSIC | options | mended)(handler)
    await app.start_consuming()


@pytest.mark.parametrize(("there", "wanted"), [("quorum", "classic"), ("classic", "quorum")])
async def test_so_does_the_queue_type(rabbit: RabbitStage, there: str, wanted: str) -> None:
    queue = rabbit.queue()
    arguments = as_declared(queue, queue_type=there)
    await rabbit.outside.declare(Topology(queues=(Queue(name=queue, arguments=arguments),)))
    said = await refusal(rabbit, queue, queue_type=wanted)
    assert f'queue_type="{there}"' in said


async def test_a_queue_without_arguments_can_only_be_taken_as_it_stands(rabbit: RabbitStage) -> None:
    queue, dlq = rabbit.queue(), rabbit.queue()
    await rabbit.outside.declare(Topology(queues=(Queue(name=queue), Queue(name=dlq))))
    said = await refusal(rabbit, queue, dlq=dlq, **CLASSIC)
    assert "Either take it as it stands with declare=False" in said
    app = rabbit.app()
    app.handler(queue, dlq=dlq, declare=False)(handler)
    await app.start_consuming()


async def test_the_type_of_an_exchange_is_its_bindings(rabbit: RabbitStage) -> None:
    exchange, queue = rabbit.exchange(), rabbit.queue()
    await rabbit.outside.declare(Topology(exchanges=(Exchange(name=exchange, type="fanout"),)))
    said = await refusal(rabbit, queue, bind=Binding(exchange, "a.*"))
    assert 'exchange_type="fanout"' in said
    assert "declare=False" not in said  # which is of queues
    app = rabbit.app()
    app.handler(queue, bind=Binding(exchange, "a.*", exchange_type="fanout"))(handler)
    await app.start_consuming()
