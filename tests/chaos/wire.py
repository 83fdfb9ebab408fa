"""Another client, which sends and sees what ours would not."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pika  # type: ignore[import-untyped]
from pika.adapters.blocking_connection import BlockingChannel  # type: ignore[import-untyped]

from tests.support.waiting import eventually


@dataclass(frozen=True)
class Found:
    """A message as it lies in a queue."""

    body: bytes
    properties: Any

    @property
    def document(self) -> dict[str, Any]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document


async def put(url: str, queue: str, body: bytes | dict[str, Any], **properties: Any) -> None:  # noqa: ANN401
    """Publish with these properties and none besides, confirmed."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    def publish() -> None:
        with _channel(url) as channel, _deep_recursion():
            channel.confirm_delivery()
            channel.basic_publish("", queue, raw, pika.BasicProperties(**properties), mandatory=True)

    await asyncio.to_thread(publish)


async def declare(url: str, queue: str, **arguments: object) -> None:
    """A durable queue with exactly these arguments, given as ``x_max_length=5``."""

    def declare() -> None:
        given = {name.replace("_", "-"): value for name, value in arguments.items()}
        with _channel(url) as channel:
            channel.queue_declare(queue, durable=True, arguments=given)

    await asyncio.to_thread(declare)


async def delete(url: str, queues: Iterable[str]) -> None:
    def delete() -> None:
        with _channel(url) as channel:
            for queue in queues:
                channel.queue_delete(queue)

    await asyncio.to_thread(delete)


async def take(url: str, queue: str, number: int = 1, *, within: float = 30.0) -> list[Found]:
    """Wait for so many messages, and take them."""
    found: list[Found] = []

    def get() -> bool:
        with _channel(url) as channel:
            while len(found) < number:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None or body is None:
                    return False
                found.append(Found(body, properties))
        return True

    await eventually(lambda: asyncio.to_thread(get), within=within)
    return found


async def depth(url: str, queue: str) -> int:
    """How many messages are ready."""

    def count() -> int:
        with _channel(url) as channel:
            return int(channel.queue_declare(queue, passive=True).method.message_count)

    return await asyncio.to_thread(count)


@contextmanager
def _channel(url: str) -> Generator[BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


@contextmanager
def _deep_recursion() -> Generator[None]:
    """That client writes tables by recursion."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
