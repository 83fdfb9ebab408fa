"""The seed's two classes: constructors, methods, and where a left-out argument comes from."""

import hashlib
import inspect
import os
from typing import Any

import pytest

from autosell_rmq import ConfigError, RabbitMQConsumer, RabbitMQProducer
from tests.acceptance.markdown import SEED, blocks, seed_snippet
from tests.acceptance.snippets import execute

pytestmark = pytest.mark.acceptance

CONSUMER = seed_snippet("max_retries=3 ")
PRODUCER = seed_snippet("# URL подключения к RabbitMQ\n)")
BY_CODE = seed_snippet("os.getenv")
GUEST = "amqp://guest:***@localhost:5672"

# What the seed says of each method; whether it is a coroutine is what 0.1.4 made of it.
METHODS = [
    (RabbitMQConsumer, "set_message_handler", "(handler)", False),
    (RabbitMQConsumer, "start_consuming", "()", True),
    (RabbitMQConsumer, "run_forever", "()", True),
    (RabbitMQConsumer, "stop", "()", False),
    (RabbitMQConsumer, "close", "()", True),
    (
        RabbitMQProducer,
        "send_message",
        "(queue_name, message_data, wait_for_response=True, timeout=30.0)",
        True,
    ),
    (RabbitMQProducer, "send_fire_and_forget", "(queue_name, message_data)", True),
    (RabbitMQProducer, "close", "()", True),
]


def told(consumer: RabbitMQConsumer) -> tuple[str, str, str, int]:
    return consumer.connection_url, consumer.queue_name, consumer.dlq_name, consumer.max_retries


async def test_consumer_constructor_snippet() -> None:
    names: dict[str, Any] = {"RabbitMQConsumer": RabbitMQConsumer}

    await execute(CONSUMER, names)

    assert told(names["consumer"]) == (GUEST, "main_queue", "dlq_queue", 3)


async def test_producer_constructor_snippet() -> None:
    names: dict[str, Any] = {"RabbitMQProducer": RabbitMQProducer}

    await execute(PRODUCER, names)

    assert isinstance(names["producer"], RabbitMQProducer)


def test_constructors_take_no_arguments_at_all() -> None:
    RabbitMQProducer()
    assert told(RabbitMQConsumer()) == (GUEST, "main_queue", "dlq_queue", 3)


def test_constructors_take_their_arguments_by_position() -> None:
    RabbitMQProducer("amqp://host/")
    consumer = RabbitMQConsumer("amqp://u:p@host/shop", "orders", "dead", 7)
    assert told(consumer) == ("amqp://u:***@host:5672/shop", "orders", "dead", 7)


@pytest.mark.parametrize(("owner", "name", "arguments", "is_coroutine"), METHODS)
def test_seed_lists_the_method_and_it_is_there(
    owner: type, name: str, arguments: str, is_coroutine: bool
) -> None:
    assert f"- **`{name}{arguments}`**" in SEED.read_text(encoding="utf-8")
    method = getattr(owner, name)
    assert inspect.iscoroutinefunction(method) is is_coroutine
    parameters = [p for p in inspect.signature(method).parameters.values() if p.name != "self"]
    words = [part.strip() for part in arguments.strip("()").split(",") if part.strip()]
    for word, parameter in zip(words, parameters, strict=False):
        wanted, _, default = word.partition("=")
        assert parameter.name == wanted
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert not default or parameter.default == eval(default)


def test_seed_is_the_original_word_for_word() -> None:
    digest = hashlib.sha256(SEED.read_bytes()).hexdigest()

    assert digest == "2951070933b42fcc52ca47da9f8dea1609db67e5b417ab0e7f43c3c6c862a2e2"


# --- the environment -----------------------------------------------------------------------------------


def exports() -> dict[str, str]:
    """The seed's four variables with its values."""
    [code] = [block.code for block in blocks(SEED, "bash") if "export" in block.code]
    lines = [line.removeprefix("export ").partition("=") for line in code.splitlines()]
    return {name: value.strip('"') for name, _, value in lines}


def test_environment_of_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in exports().items():
        monkeypatch.setenv(name, value)

    expected = ("amqp://user:***@localhost:5672/vhost", "my_app_queue", "my_app_dlq", 5)
    assert set(exports()) == {"RABBITMQ_URL", "QUEUE_NAME", "DLQ_NAME", "MAX_RETRIES"}
    assert told(RabbitMQConsumer()) == expected


async def test_configuration_by_code_reads_the_same_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"RabbitMQConsumer": RabbitMQConsumer}
    await execute(BY_CODE, names)
    assert told(names["consumer"]) == (GUEST, "default_queue", "default_dlq", 3)

    for name, value in exports().items():
        monkeypatch.setenv(name, value)
    await execute(BY_CODE, names)
    assert told(names["consumer"]) == told(RabbitMQConsumer())
    assert names["os"] is os


@pytest.mark.parametrize("name", ["RABBITMQ_URL", "QUEUE_NAME", "DLQ_NAME", "MAX_RETRIES"])
def test_argument_wins_over_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, {"MAX_RETRIES": "9", "RABBITMQ_URL": "amqp://elsewhere/"}.get(name, "elsewhere"))

    consumer = RabbitMQConsumer("amqp://here/", "here", "here_dead", 1)

    assert told(consumer) == ("amqp://guest:***@here:5672", "here", "here_dead", 1)


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ({"queue_name": "a", "dlq_name": "d"}, {"DLQ_NAME": "e"}, "d"),
        ({"queue_name": "a"}, {"DLQ_NAME": "e"}, "a_dlq"),
        ({"queue_name": "a"}, {}, "a_dlq"),
        ({}, {"QUEUE_NAME": "q", "DLQ_NAME": "e"}, "e"),
        ({}, {"QUEUE_NAME": "q"}, "q_dlq"),
        ({}, {"DLQ_NAME": "e"}, "e"),
        ({}, {}, "dlq_queue"),
        ({"dlq_name": "d"}, {"QUEUE_NAME": "q", "DLQ_NAME": "e"}, "d"),
        ({}, {"QUEUE_NAME": "q", "DLQ_NAME": ""}, "q_dlq"),
    ],
)
def test_where_the_dlq_name_comes_from(
    arguments: dict[str, Any], environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert RabbitMQConsumer(None, **arguments).dlq_name == expected


def test_environment_is_read_when_the_object_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    before = RabbitMQConsumer()
    monkeypatch.setenv("QUEUE_NAME", "later")

    assert (before.queue_name, RabbitMQConsumer().queue_name) == ("main_queue", "later")


def test_wrong_value_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_RETRIES", "many")

    with pytest.raises(ConfigError, match="MAX_RETRIES='many'"):
        RabbitMQConsumer()
