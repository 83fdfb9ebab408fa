"""The broker's address: one host or several, as one string or as a list."""

import asyncio
from collections.abc import Sequence

import pytest

from autosell_rmq import (
    ConfigError,
    RabbitMQ,
    RabbitMQConsumer,
    RabbitMQProducer,
    Settings,
    SyncRabbitMQProducer,
    asyncapi_document,
)
from autosell_rmq.config import BrokerURL

THREE = (("h1", 5672), ("h2", 5673), ("h3", 5672))


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("amqp://u:p@h1/v", (("h1", 5672),)),
        ("amqps://u:p@h1/v", (("h1", 5671),)),
        ("amqp://u:p@h1,h2:5673,h3:5672/v", THREE),
        ("amqp://u:p@ h1 , h2:5673 , h3/v", THREE),
        ("amqp://u:p@h1/v,amqp://u:p@h2:5673/v,amqp://u:p@h3/v", THREE),
        ("amqp://u:p@h1/v , amqp://u:p@h2:5673/v ,\n amqp://u:p@h3/v", THREE),
        ("amqp://u:p@h1,h2:5673/v,amqp://u:p@h3/v", THREE),
        ("amqp://u:p@h3:5672,h2:5673,h1:5672/v", THREE[::-1]),
        ("amqps://u:p@h1,h2:5673/v", (("h1", 5671), ("h2", 5673))),
        ("amqp://u:p@[::1]/v", (("::1", 5672),)),
        ("amqp://u:p@[::1]:5673,[fe80::2],h3:1/v", (("::1", 5673), ("fe80::2", 5672), ("h3", 1))),
        ("amqp://u:p@h1,[::1]:5673/v", (("h1", 5672), ("::1", 5673))),
        ("amqp://u:p@[::1]/v,amqp://u:p@[::2]:5673/v", (("::1", 5672), ("::2", 5673))),
        ("amqp://u:p@h1,h1/v", (("h1", 5672), ("h1", 5672))),
    ],
)
def test_the_hosts_of_an_address(url: str, addresses: tuple[tuple[str, int], ...]) -> None:
    parsed = BrokerURL.parse(url)

    assert parsed.addresses == addresses
    assert (parsed.host, parsed.port) == addresses[0]
    assert (parsed.user, parsed.password, parsed.vhost) == ("u", "p", "v")


def test_what_all_hosts_share() -> None:
    parsed = BrokerURL.parse("amqps://shop:p%2Cw,x@h1,h2:5673/a%2Cb?heartbeat=20&name=orders,eu")

    assert parsed.addresses == (("h1", 5671), ("h2", 5673))
    assert (parsed.user, parsed.password, parsed.vhost) == ("shop", "p,w,x", "a,b")
    assert (parsed.heartbeat, parsed.name) == (20, "orders,eu")
    assert BrokerURL.parse("amqp://h1,h2").vhost == "/"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:secret@h1,h2:5673/v", "amqp://u:***@h1:5672,h2:5673/v"),
        ("amqps://u:secret@[::1]/,amqps://u:secret@h2", "amqps://u:***@[::1]:5671,h2:5671"),
    ],
)
def test_all_hosts_are_shown_and_no_password(url: str, shown: str) -> None:
    parsed = BrokerURL.parse(url)

    assert str(parsed) == parsed.redacted == shown
    assert "secret" not in repr(parsed)
    assert BrokerURL.parse(parsed.redacted).addresses == parsed.addresses


LISTS: list[Sequence[str]] = [
    ["amqp://u:p@h1/v", "amqp://u:p@h2:5673/v", "amqp://u:p@h3/v"],
    ("amqp://u:p@h1,h2:5673/v", "amqp://u:p@h3/v"),
]


@pytest.mark.parametrize("urls", LISTS, ids=["list", "tuple"])
def test_every_face_takes_a_list(urls: Sequence[str]) -> None:
    app = RabbitMQ(url=urls)

    assert app.settings.broker_url.addresses == THREE
    assert RabbitMQConsumer(connection_url=urls).connection_url == "amqp://u:***@h1:5672,h2:5673,h3:5672/v"
    assert Settings.build(urls).broker_url.addresses == THREE
    RabbitMQProducer(connection_url=urls)
    SyncRabbitMQProducer(connection_url=urls)


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ([], "list of the broker's URLs is empty"),
        (["amqp://h1", "h2"], "no scheme"),
        (["amqp://h1", ""], "is empty"),
        (["amqp://h1", "amqps://h2"], "differ in their scheme"),
        (["amqp://u:secret@h1", "amqp://u:other@h2"], "differ in their password"),
    ],
)
def test_a_wrong_list_is_refused_by_every_face(
    urls: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://elsewhere/")
    for face in (RabbitMQ, RabbitMQConsumer, RabbitMQProducer, SyncRabbitMQProducer, Settings.build):
        with pytest.raises(ConfigError) as refused:
            face(urls)
        assert said in str(refused.value)
        assert "secret" not in str(refused.value)


def test_the_environment_may_name_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://u:p@h1,h2:5673,h3/v")

    assert RabbitMQ().settings.broker_url.addresses == THREE


async def test_a_list_of_one_connects() -> None:
    async with asyncio.timeout(5), RabbitMQProducer(["memory://a-list-of-one"]) as producer:
        assert await producer.publish_to_exchange("events", "nobody", {}, mandatory=False)


def test_each_node_is_a_server_of_the_document() -> None:
    document = asyncapi_document(RabbitMQ("amqps://u:p@h1,[::1]:5673/v"), title="Shop", version="1")

    assert {name: server["host"] for name, server in document["servers"].items()} == {
        "broker": "h1:5671",
        "broker-2": "[::1]:5673",
    }
