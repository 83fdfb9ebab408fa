"""A small AMQP client for what the runner needs: queues, and many messages into them, quickly.

It fills a queue with copies of one message that a peer published itself, each under ids of its own, so that
every peer consumes what its own producer sends. The frames are made once; a copy differs in its ids only.
"""

from __future__ import annotations

import re
import secrets
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader, ProtocolHeader

CHANNEL = 1
MOST_UNCONFIRMED = 4000
BATCH = 250

_IDS = re.compile(rb"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Template:
    """A message as a peer published it: its encoded header frame and its body."""

    header: ContentHeader
    body: bytes


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is."""

    host: str
    port: int
    user: str
    password: str
    vhost: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Read an ``amqp://`` URL; what it leaves out is RabbitMQ's default."""
        parts = urlsplit(url)
        return cls(
            parts.hostname or "127.0.0.1",
            parts.port or 5672,
            unquote(parts.username or "guest"),
            unquote(parts.password or "guest"),
            unquote(parts.path[1:]) or "/",
        )


class Wire:
    """One connection with one channel that confirms."""

    def __init__(self, url: str) -> None:
        address = Address.of(url)
        self._socket = socket.create_connection((address.host, address.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._published = 0
        self._confirmed = 0
        self._open(address)

    def declare(self, queue: str, *, kind: str) -> None:
        """Declare a durable queue."""
        self._ask(commands.Queue.Declare(queue=queue, durable=True, arguments={"x-queue-type": kind}))

    def purge(self, queue: str) -> None:
        """Drop what is ready in it."""
        self._ask(commands.Queue.Purge(queue=queue))

    def delete(self, queue: str) -> None:
        """Delete it; one that is not there is no error."""
        self._ask(commands.Queue.Delete(queue=queue))

    def delete_exchange(self, exchange: str) -> None:
        """Delete it; one that is not there is no error."""
        self._ask(commands.Exchange.Delete(exchange=exchange))

    def depth(self, queue: str) -> int:
        """How many messages of it are ready."""
        answer = self._ask(commands.Queue.Declare(queue=queue, passive=True))
        assert isinstance(answer, commands.Queue.DeclareOk)
        return answer.message_count or 0

    def take(self, queue: str) -> Template:
        """Take one message out, as the template of many."""
        found = self._get(queue)
        assert found is not None, f"queue {queue}: the peer published nothing"
        return found[0]

    def drop_redelivered(self, queue: str) -> None:
        """Drop what the last consumer left in front, and the message after it."""
        while (found := self._get(queue)) is not None and found[1]:
            pass

    def _get(self, queue: str) -> tuple[Template, bool] | None:
        """Take one message out, and whether it was delivered before."""
        answer = self._ask(commands.Basic.Get(queue=queue, no_ack=True))
        if not isinstance(answer, commands.Basic.GetOk):
            return None
        head = self._read()
        assert isinstance(head, ContentHeader)
        body = b""
        while len(body) < (head.body_size or 0):
            part = self._read()
            assert isinstance(part, ContentBody)
            body += part.value or b""
        return Template(head, body), bool(answer.redelivered)

    def fill(self, queue: str, template: Template, n: int) -> None:
        """Publish `n` copies, each with its own ids, and wait until all are confirmed."""
        method = frame.marshal(commands.Basic.Publish(exchange="", routing_key=queue), CHANNEL)
        size = 131_072 - 8
        parts = [template.body[i : i + size] for i in range(0, len(template.body), size)]
        content = b"".join(frame.marshal(ContentBody(part), CHANNEL) for part in parts)
        whole = method + frame.marshal(template.header, CHANNEL) + content
        ids = set(_IDS.findall(whole))
        for start in range(0, n, BATCH):
            copies = [renewed(whole, ids) for _ in range(min(BATCH, n - start))]
            self._socket.sendall(b"".join(copies))
            self._published += len(copies)
            self._confirm(MOST_UNCONFIRMED)
        self._confirm(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _open(self, address: Address) -> None:
        self._socket.sendall(frame.marshal(ProtocolHeader(0, 9, 1), 0))
        self._read()
        login = f"\0{address.user}\0{address.password}"
        self._send(commands.Connection.StartOk({}, "PLAIN", login, "en_US"), 0)
        tune = self._read()
        assert isinstance(tune, commands.Connection.Tune), f"RabbitMQ refused the login: {tune}"
        self._send(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), 0)
        self._send(commands.Connection.Open(address.vhost), 0)
        self._read()
        self._ask(commands.Channel.Open())
        self._ask(commands.Confirm.Select())

    def _ask(self, request: Frame) -> object:
        self._send(request, CHANNEL)
        answer = self._read()
        if isinstance(answer, commands.Channel.Close | commands.Connection.Close):
            raise ConnectionError(f"{request.name}: {answer.reply_text}")
        return answer

    def _send(self, request: Frame, channel: int) -> None:
        self._socket.sendall(frame.marshal(request, channel))

    def _confirm(self, most: int) -> None:
        """Read confirms until at most so many publishes are without one."""
        while self._published - self._confirmed > most:
            ack = self._read()
            assert isinstance(ack, commands.Basic.Ack), f"a copy was not taken: {ack}"
            if ack.multiple:
                self._confirmed = max(self._confirmed, ack.delivery_tag or 0)
            else:
                self._confirmed += 1

    def _read(self) -> object:
        while True:
            head = bytes(self._buffer[:7])
            size = int.from_bytes(head[3:7]) + 8
            if len(head) == 7 and len(self._buffer) >= size:
                whole = bytes(self._buffer[:size])
                del self._buffer[:size]
                return frame.unmarshal(whole)[2]
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError("RabbitMQ closed the connection")
            self._buffer += data


def renewed(whole: bytes, ids: set[bytes]) -> bytes:
    """A copy in which every id is another one, of the same form."""
    for old in ids:
        new = secrets.token_hex(16).encode()
        if b"-" in old:
            new = b"-".join((new[:8], new[8:12], new[12:16], new[16:20], new[20:]))
        whole = whole.replace(old, new)
    return whole
