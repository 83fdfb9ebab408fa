"""The password of the URL is in no log at any level, in no error and in no repr."""

import asyncio
import logging
import re
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from urllib.parse import quote, urlsplit

import pytest

from autosell_rmq import (
    AccessRefused,
    AutosellRmqError,
    BrokerUnavailable,
    ConfigError,
    RabbitMQ,
    RabbitMQConsumer,
    RabbitMQProducer,
    Settings,
    SyncRabbitMQProducer,
)
from autosell_rmq.brokers import create_broker
from autosell_rmq.config import BrokerURL
from tests.integration.bad_input_fixtures import Recorder
from tests.support import services
from tests.support.names import unique
from tests.support.services import RABBITMQ_URL

PASSWORD = "Zx9-geheim%/пароль"
ENCODED = quote(PASSWORD, safe="")
HOST = urlsplit(RABBITMQ_URL).hostname or "127.0.0.1"
PORT = urlsplit(RABBITMQ_URL).port or 5672

type Start = Callable[[str], Awaitable[object]]


def without_password(text: str) -> bool:
    return not any(part in text for part in (PASSWORD, ENCODED, "geheim", "пароль"))


def everything_said(error: BaseException) -> str:
    """What an error tracker would show of it: the chain with its tracebacks, arguments and attributes."""
    shown = "".join(traceback.format_exception(error))
    return f"{shown}{error!r}{error.args!r}{vars(error)!r}"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything, the client libraries' records too."""
    caplog.set_level(logging.DEBUG)
    for name in ("aiormq", "aio_pika", "pamqp", "asyncio", "autosell_rmq"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """A port that takes connections and says nothing."""
    done = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    done.set()
    server.close()
    await server.wait_closed()


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


# --- each face, as it starts -----------------------------------------------------------------------


async def consume(url: str) -> None:
    consumer = RabbitMQConsumer(url, unique("secret"), startup_timeout=0.3, connect_timeout=0.5)
    consumer.set_message_handler(Recorder())
    try:
        await consumer.start_consuming()
    finally:
        await consumer.close()


async def produce(url: str) -> object:
    async with RabbitMQProducer(url, startup_timeout=0.3, connect_timeout=0.5) as producer:
        return await producer.send_message("nowhere", {})


async def produce_blocking(url: str) -> object:
    def call() -> object:
        with SyncRabbitMQProducer(url, startup_timeout=0.3, connect_timeout=0.5) as producer:
            return producer.send_message("nowhere", {})

    return await asyncio.to_thread(call)


async def run_app(url: str) -> object:
    async with RabbitMQ(url, startup_timeout=0.3, connect_timeout=0.5) as app:
        return app


@pytest.mark.parametrize("start", [consume, produce, produce_blocking, run_app])
async def test_nobody_at_the_port_is_told_in_one_line_without_the_password(
    start: Start, log: pytest.LogCaptureFixture
) -> None:
    port = closed_port()
    with pytest.raises(
        BrokerUnavailable, match=rf"cannot connect to RabbitMQ at .*127\.0\.0\.1:{port}"
    ) as told:
        await start(f"amqp://shop:{ENCODED}@127.0.0.1:{port}/")

    assert "\n" not in str(told.value)
    assert without_password(everything_said(told.value))
    assert without_password(log.text)


async def test_a_wrong_host_is_told_without_the_password(log: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BrokerUnavailable, match=r"no-such-host\.invalid") as told:
        await produce(f"amqp://shop:{ENCODED}@no-such-host.invalid/")

    assert without_password(everything_said(told.value))
    assert without_password(log.text)


async def test_a_silent_host_is_told_without_the_password(
    silent_port: int, log: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BrokerUnavailable, match="did not answer in time") as told:
        await produce(f"amqp://shop:{ENCODED}@127.0.0.1:{silent_port}/")

    assert without_password(everything_said(told.value))
    assert without_password(log.text)


@pytest.mark.rabbitmq
@pytest.mark.parametrize("start", [consume, produce, produce_blocking, run_app])
async def test_a_wrong_password_is_refused_at_once_and_not_shown(
    start: Start, log: pytest.LogCaptureFixture
) -> None:
    services.require("rabbitmq")

    with pytest.raises(AccessRefused, match="refused the login of user 'guest'") as told:
        await start(f"amqp://guest:{ENCODED}@{HOST}:{PORT}/")

    assert "\n" not in str(told.value)
    assert without_password(everything_said(told.value))
    assert without_password(log.text)


@pytest.mark.rabbitmq
async def test_a_wrong_vhost_is_refused_at_once_and_named(log: pytest.LogCaptureFixture) -> None:
    services.require("rabbitmq")
    url = urlsplit(RABBITMQ_URL)

    with pytest.raises(AccessRefused, match="refused vhost 'no/such'") as told:
        await produce(url._replace(path="/no%2Fsuch").geturl())

    assert f":{url.password or 'guest'}@" not in everything_said(told.value) + log.text


@pytest.mark.rabbitmq
async def test_tls_to_a_port_that_speaks_none_is_told_without_the_password(
    log: pytest.LogCaptureFixture,
) -> None:
    services.require("rabbitmq")

    with pytest.raises(AutosellRmqError) as told:
        await produce(f"amqps://shop:{ENCODED}@{HOST}:{PORT}/")

    assert without_password(everything_said(told.value))
    assert without_password(log.text)


@pytest.mark.rabbitmq
async def test_a_run_with_everything_logged_shows_no_password_of_a_good_login(
    log: pytest.LogCaptureFixture,
) -> None:
    services.require("rabbitmq")
    queue, password = unique("secret"), urlsplit(RABBITMQ_URL).password or "guest"
    with suppress(AutosellRmqError):
        await consume(RABBITMQ_URL)
    async with RabbitMQProducer(RABBITMQ_URL) as producer:
        with pytest.raises(AutosellRmqError):
            await producer.send_message(queue, {})

    assert f":{password}@" not in log.text
    assert not re.search(rf"(\0|x00){re.escape(password)}\b", log.text)  # as the login sends it
    assert ":***@" in log.text
    assert "Prepare to send" in log.text  # the client's own records are there, too


# --- what is printed -------------------------------------------------------------------------------


async def test_no_object_shows_the_password_when_it_is_printed() -> None:
    url = f"amqps://shop:{ENCODED}@rabbit.example/prod?name=shop"
    settings = Settings(url=url)
    app = RabbitMQ(url)
    app.handler("orders")(Recorder())
    shown = [
        settings,
        settings.broker_url,
        BrokerURL.parse(url),
        settings.broker_url.redacted,
        RabbitMQConsumer(url),
        RabbitMQConsumer(url).connection_url,
        RabbitMQProducer(url),
        SyncRabbitMQProducer(url),
        app,
        app.settings,
        app.producer,
        app.handlers,
        create_broker(settings),
    ]

    for thing in shown:
        for text in (repr(thing), str(thing), f"{thing}"):
            assert without_password(text), type(thing)
    assert str(settings.broker_url) == "amqps://shop:***@rabbit.example:5671/prod"
    assert BrokerURL.parse(url).password == PASSWORD


@pytest.mark.parametrize(
    "url",
    [
        "amqp://shop:1/{0}@rabbit.example/",
        "amqp://shop:1/{0}@rabbit.example/a/b",
        "amqp://shop:1?{0}@rabbit.example/",
        "amqp://shop:1#{0}@rabbit.example/",
        "amqp://shop:a@b/{0}@rabbit.example/",
        "amqp://shop:{0}@one/x,shop:{0}@two/x",
        "amqp://shop:{0}@one/,amqp://shop:{0}x@two/",
        "amqp://shop:{0}@rabbit.example:port/",
        "amqp://shop:{0}@rabbit.example/a/b",
        "amqp://shop:{0}@rabbit.example/?no_verify_ssl=1",
        "amqp://shop:{0}@rabbit.example/?password={0}",
        "amqp://shop:{0}@rabbit.example/?heartbeat=soon",
        "amqp://shop:{0}@rabbit.example/#{0}",
        "amqp://shop:{0}@/",
        "amqp://shop:{0}@rabbit.example:99999/",
        "amqp://shop:{0}@[::1/",
        "http://shop:{0}@rabbit.example/",
        "shop:{0}@rabbit.example",
        "amqp://shop:geheim/пароль@rabbit.example/",  # the slash is not percent-encoded
        "amqp://shop:geheim#пароль@rabbit.example/",
        "amqp://shop:geheim?пароль@rabbit.example/",
        "amqp://shop:geheim@пароль@rabbit.example:1x/",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as told:
        RabbitMQ(url.format(ENCODED))

    assert without_password(everything_said(told.value)), everything_said(told.value)


def test_settings_as_a_dictionary_are_for_programs_and_hold_the_url() -> None:
    """What prints a settings object prints its repr; only who asks for the URL gets it."""
    assert asdict(Settings(url=f"amqp://shop:{ENCODED}@h/"))["url"].endswith("@h/")
