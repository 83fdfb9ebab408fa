"""Strangers can say anything: forged addresses, forged logs, other formats; and what a URL may say."""

from __future__ import annotations

import asyncio
import pickle
import ssl
from pathlib import Path

import pytest

from autosell_rmq import BrokerError, ConfigError, RabbitMQ, Settings
from tests.chaos import wire
from tests.chaos.nodes import Node
from tests.chaos.report import Row
from tests.chaos.worlds import Leased
from tests.support.certificates import Authority
from tests.support.names import unique
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

# Other tests of `make test` prove the same of the parts.
pytestmark = [pytest.mark.chaos, pytest.mark.rabbitmq, pytest.mark.timeout(120)]

PASSWORD = "hunter2-and-more"
BODY = "4111-1111-1111-1111"


# I1, I4: handled once, no reply, no loop. Mutant: a reply to any address.
@pytest.mark.row("59", "reply_to of the app's own queue, its DLQ, the delay line")
async def test_replies_to_its_own_queues_are_refused(leased: Leased, node: Node, row: Row) -> None:
    addresses = (leased.queue, f"{leased.queue}_dlq", "autosell.delay.1s")
    async with leased.worker() as worker:
        for address in addresses:
            key = f"{leased.queue}.to.{address}"
            await wire.put(
                node.url, leased.queue, {"key": key, "seconds": 0}, correlation_id=key, reply_to=address
            )
        await worker.until("no reply is sent to reply_to=", times=len(addresses))
        await eventually(lambda: _effects_are(leased, len(addresses)))

    assert await wire.depth(node.url, leased.queue) == 0
    assert await wire.depth(node.url, f"{leased.queue}_dlq") == 0
    row.seen.append("three handled once, three replies refused, nothing comes back")


# I1: only the default exchange, marked as a reply, and refused where a request is expected. Mutant: the type
# of a reply is not looked at.
@pytest.mark.row("59", "reply_to of another service's queue, whose consumer answers back")
async def test_two_services_do_not_play_tennis(leased: Leased, node: Node, row: Row) -> None:
    other = Leased(node.url, redis=leased.redis)
    async with leased.worker(), other.worker():
        data = {"key": f"{leased.queue}.ball", "seconds": 0}
        await wire.put(node.url, leased.queue, data, correlation_id="ball", reply_to=other.queue)
        [letter] = await wire.take(node.url, f"{other.queue}_dlq")

    assert letter.document["reason_code"] == "rejected"
    assert len(await leased.effects()) == 1
    assert await other.effects() == []
    await other.clean()
    row.seen.append("one effect; the reply is dead-lettered as rejected")


@pytest.mark.row("59", "reply_to outside of reply_to_allowed")
async def test_an_allow_list(leased: Leased, node: Node, row: Row) -> None:
    theirs = unique("replies")
    await wire.declare(node.url, theirs)
    async with leased.worker(reply_to_allowed=["replies.*"]) as worker:
        data = {"key": f"{leased.queue}.theirs", "seconds": 0}
        await wire.put(node.url, leased.queue, data, correlation_id="theirs", reply_to=theirs)
        await worker.until("no reply is sent to reply_to=")
    assert await wire.depth(node.url, theirs) == 0
    await wire.delete(node.url, [theirs])
    row.seen.append("one effect, no reply")


# I6. Mutant: an id is logged as it came.
@pytest.mark.row("61", "ids with line breaks, escape sequences and %s")
async def test_nobody_writes_our_log(leased: Leased, node: Node, row: Row) -> None:
    async with leased.worker() as worker:
        for number, odd in enumerate(("a\r\nERROR forged line", "\x1b[2Jwiped", "%s%n%(x)s")):
            data = {"key": f"{leased.queue}.{number}", "seconds": 0}
            gone = f"{leased.prefix}.{odd}"
            await wire.put(node.url, leased.queue, data, correlation_id=odd, reply_to=gone)
        await worker.until("nobody waits at reply_to", times=3)

    assert not any(line.startswith("ERROR forged") for line in worker.errors)
    assert "\x1b" not in worker.error_output
    assert "Logging error" not in worker.error_output
    row.seen.append("escaped, all three")


# I6. Mutant: the URL in an error's text.
@pytest.mark.row("62", "a password and a body, through an outage and a failing handler")
async def test_no_secret_in_the_log(leased: Leased, node: Node, proxy: TcpProxy, row: Row) -> None:
    user = unique("user").replace(".", "-")
    await node.ctl("add_user", user, PASSWORD)
    await node.ctl("set_permissions", user, ".*", ".*", ".*")
    url = f"amqp://{user}:{PASSWORD}@127.0.0.1:{proxy.port}/"
    async with leased.worker(url=url, max_retries=1, retry_delay=0.1) as worker:
        proxy.refuse()
        await worker.until("the consumer ended")
        proxy.heal()
        await worker.until("consuming again")
        data = {"key": "k", "seconds": 0, "how": "raise", "card": BODY}
        await wire.put(node.url, leased.queue, data, correlation_id="k")
        await wire.take(node.url, f"{leased.queue}_dlq")
    await node.ctl("delete_user", user)

    assert PASSWORD not in worker.transcript
    assert BODY not in worker.transcript
    row.seen.append("neither is logged")


# Mutant: a parameter that is let through to the client library.
@pytest.mark.row("63", "URLs that would change more than the address")
async def test_what_a_url_may_say(row: Row) -> None:
    parameters = (
        "no_verify_ssl=1", "heartbeat=0", "reconnect_interval=0", "cafile=/etc/passwd", "keyfile=/etc/passwd",
        "auth=external", "timeout=0", "frame_max=1",
    )  # fmt: skip
    for parameter in parameters:
        with pytest.raises(ConfigError, match=parameter.partition("=")[0]):
            Settings(url=f"amqps://shop:{PASSWORD}@broker/?{parameter}")
    row.seen.append(f"{len(parameters)} refused by name")


# The password is not sent. Mutant: verify=none.
@pytest.mark.row("64", "TLS: self-signed, another name, expired, unknown authority")
async def test_certificates(row: Row, tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    shown = {
        "self-signed": ours.self_signed("alone", "DNS:localhost"),
        "another name": ours.issue("other", "DNS:elsewhere"),
        "expired": ours.issue("old", "DNS:localhost", days=-1),
        "unknown authority": theirs.issue("foreign", "DNS:localhost"),
    }
    for pair in shown.values():
        heard = bytearray()

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray = heard
        ) -> None:
            while data := await reader.read(1000):
                heard += data
            writer.close()

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.certificate, pair.key)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        app = RabbitMQ(
            f"amqps://shop:{PASSWORD}@localhost:{port}/", tls_ca_file=ours.certificate, startup_timeout=3.0
        )
        with pytest.raises((BrokerError, ConfigError)):
            await app.connect()
        server.close()
        assert heard == b""
    row.seen.append(f"{len(shown)} refused, nothing was said to them")


class Bomb:
    """What a pickle may do when it is loaded."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return open, (str(self._file), "w")


# Mutant: a decoder chosen by the content type.
@pytest.mark.row("65", "a pickle, with a content type that asks for it")
async def test_a_pickle_is_not_loaded(leased: Leased, node: Node, tmp_path: Path, row: Row) -> None:
    file = tmp_path / "loaded"
    async with leased.worker():
        await wire.put(
            node.url, leased.queue, pickle.dumps(Bomb(file)), content_type="application/x-python-serialize"
        )
        [letter] = await wire.take(node.url, f"{leased.queue}_dlq")

    assert letter.document["reason_code"] == "invalid_json"
    assert not file.exists()
    row.seen.append("dead-lettered as invalid_json, not loaded")


async def _effects_are(leased: Leased, number: int) -> bool:
    return len(await leased.effects()) == number
