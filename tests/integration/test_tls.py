"""``amqps://`` verifies whom it talks to, before it says anything; in front of the real broker."""

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Unpack

import pytest

from autosell_rmq import (
    AccessRefused,
    BrokerUnavailable,
    RabbitMQ,
    RabbitMQConsumer,
    RabbitMQProducer,
    SettingsKwargs,
    loop_factory,
)
from tests.support.certificates import Authority, Pair
from tests.support.names import unique
from tests.support.services import require
from tests.support.tls_proxy import tls_proxy
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.rabbitmq

HERE = ("DNS:localhost", "IP:127.0.0.1")


@pytest.fixture(autouse=True)
def _broker() -> None:
    require("rabbitmq")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def send(url: str, **settings: Unpack[SettingsKwargs]) -> None:
    async with asyncio.timeout(PATIENCE), RabbitMQProducer(url, **settings) as producer:
        await producer.publish_to_exchange("amq.topic", unique("nobody"), {}, mandatory=False)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_the_right_broker_is_talked_to(authority: Authority, host: str) -> None:
    async with tls_proxy(authority.issue("broker", *HERE)) as proxy:
        await send(proxy.url(host), tls_ca_file=authority.certificate)

        assert proxy.received.startswith(b"AMQP")


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
async def test_on_uvloop(authority: Authority) -> None:
    """Its transports are of other kinds than asyncio's."""

    def run(url: str) -> None:
        sending = send(url, tls_ca_file=authority.certificate)
        asyncio.run(sending, loop_factory=loop_factory(uvloop=True))

    async with tls_proxy(authority.issue("broker", *HERE)) as proxy:
        await asyncio.to_thread(run, proxy.url())
        assert proxy.received.startswith(b"AMQP")


async def test_a_request_and_its_reply(authority: Authority) -> None:
    async with tls_proxy(authority.issue("broker", *HERE)) as proxy:
        app = RabbitMQ(proxy.url(), tls_ca_file=authority.certificate, queue_type="classic")
        queue = unique("queue")

        async def handler(payload: dict[str, int]) -> int:
            return payload["item"] + 1

        app.handler(queue, arguments={"x-expires": 60_000})(handler)
        async with asyncio.timeout(PATIENCE), app:
            await app.start_consuming()
            reply = await app.producer.send_message(queue, {"item": 1})

        assert reply["data"] == 2


WRONG: list[tuple[str, Callable[[Authority, Authority], Pair], str]] = [
    ("self-signed", lambda ours, _: ours.self_signed("self", *HERE), "self-signed certificate"),
    ("another authority", lambda _, other: other.issue("broker", *HERE), "unable to get local issuer"),
    ("another name", lambda ours, _: ours.issue("broker", "DNS:other.example"), "Hostname mismatch"),
    ("another common name", lambda ours, _: ours.issue("other.example"), "Hostname mismatch"),
    ("expired", lambda ours, _: ours.issue("broker", *HERE, days=-1), "certificate has expired"),
    ("a client's", lambda ours, _: ours.issue("broker", *HERE, use="clientAuth"), "unsuitable certificate"),
]


@pytest.mark.parametrize(("shown", "said"), [wrong[1:] for wrong in WRONG], ids=[wrong[0] for wrong in WRONG])
async def test_a_wrong_certificate_ends_the_start_at_once_and_hears_no_password(
    authority: Authority, tmp_path: Path, shown: Callable[[Authority, Authority], Pair], said: str
) -> None:
    (tmp_path / "other").mkdir()
    pair = shown(authority, Authority(tmp_path / "other"))

    async with tls_proxy(pair) as proxy:
        for face in (RabbitMQProducer, RabbitMQConsumer, RabbitMQ):
            with pytest.raises(AccessRefused, match=said) as refused:
                await face(proxy.url(), tls_ca_file=authority.certificate, startup_timeout=600).connect()
            assert "_ssl.c" not in str(refused.value)
            assert "\n" not in str(refused.value)

    assert not proxy.received


async def test_an_unknown_authority_is_not_trusted(authority: Authority) -> None:
    async with tls_proxy(authority.issue("broker", *HERE)) as proxy:
        with pytest.raises(AccessRefused, match=r"unable to get local issuer.*tls_ca_file names whom"):
            await send(proxy.url())

    assert not proxy.received


@asynccontextmanager
async def plain_server(answer: bytes) -> AsyncGenerator[tuple[int, bytearray]]:
    """A port without TLS, and what it was told."""
    told = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.extend(await reader.read(65536))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], told


async def test_a_port_without_tls_hears_no_password() -> None:
    async with plain_server(b"AMQP\x00\x00\x09\x01") as (port, told):
        with pytest.raises(AccessRefused, match="does this port speak TLS"):
            await send(f"amqps://shop:hidden@localhost:{port}/")

    assert told
    assert b"hidden" not in told
    assert b"AMQP" not in told


async def test_a_server_that_goes_away_in_the_handshake_is_tried_again() -> None:
    async with plain_server(b"") as (port, _):
        with pytest.raises(BrokerUnavailable):
            await send(f"amqps://shop:hidden@localhost:{port}/", startup_timeout=0.1)


# --- our own certificate -----------------------------------------------------------------------------


async def test_a_broker_that_asks_for_a_certificate_gets_it(authority: Authority, tmp_path: Path) -> None:
    ours = authority.issue("shop", use="clientAuth")
    locked = authority.issue("locked", use="clientAuth", password="s3cret")
    both = tmp_path / "both.pem"
    both.write_bytes(ours.certificate.read_bytes() + ours.key.read_bytes())
    trust: SettingsKwargs = {"tls_ca_file": authority.certificate}
    files: list[SettingsKwargs] = [
        {"tls_cert_file": ours.certificate, "tls_key_file": ours.key},
        {"tls_cert_file": str(both)},
        {"tls_cert_file": locked.certificate, "tls_key_file": locked.key, "tls_key_password": "s3cret"},
    ]

    async with tls_proxy(authority.issue("broker", *HERE), asks_for=authority.certificate) as proxy:
        for given in files:
            settings: SettingsKwargs = {**trust, **given}
            await send(proxy.url(), **settings)
        seen = len(proxy.received)
        with pytest.raises((AccessRefused, BrokerUnavailable)):
            await send(proxy.url(), tls_ca_file=authority.certificate, startup_timeout=0.1)

        assert len(proxy.received) == seen


async def test_a_renewed_certificate_is_used_from_the_next_connection_on(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stale = Authority(tmp_path / "other").issue("shop", use="clientAuth")
    ours = Pair(tmp_path / "ours.pem", tmp_path / "ours.key")

    def place(pair: Pair) -> None:
        ours.certificate.write_bytes(pair.certificate.read_bytes())
        ours.key.write_bytes(pair.key.read_bytes())

    place(stale)
    async with tls_proxy(authority.issue("broker", *HERE), asks_for=authority.certificate) as proxy:
        app = RabbitMQ(
            proxy.url(),
            tls_ca_file=authority.certificate,
            tls_cert_file=ours.certificate,
            tls_key_file=ours.key,
            startup_timeout=0.1,
        )
        with pytest.raises((AccessRefused, BrokerUnavailable)):
            await app.connect()
        place(authority.issue("shop", use="clientAuth"))
        await app.connect()
        await app.close()
        ours.key.unlink()
        with pytest.raises(AccessRefused, match=r"tls_key_file=.*No such file"):
            await app.connect()


# --- without verification ----------------------------------------------------------------------------


async def test_only_a_setting_of_its_own_switches_the_verification_off_and_the_log_says_so(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with tls_proxy(authority.self_signed("self", "DNS:other.example")) as proxy:
        await send(proxy.url(), allow_insecure_tls=True)
        with pytest.raises(AccessRefused):
            await send(proxy.url(), allow_insecure_tls=False)

    assert [record.getMessage() for record in caplog.records] == [
        f"allow_insecure_tls=True: whoever answers at amqps://guest:***@localhost:{proxy.port} is taken for"
        " RabbitMQ, and gets the password"
    ]
