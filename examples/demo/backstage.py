"""Behind the scenes: which broker there is, a look into its queues, and the cleaning up."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aio_pika
from aio_pika.abc import AbstractConnection

from autosell_rmq import ConfigError, Settings
from autosell_rmq.testing import MemoryServer, memory_server

LOCALHOST = "amqp://guest:guest@localhost/"


class Backstage(Protocol):
    """One broker, as somebody beside the two sides sees it."""

    @property
    def url(self) -> str: ...

    @property
    def description(self) -> str: ...

    async def letter(self, dlq: str) -> dict[str, Any]:
        """Take the oldest dead letter out of a DLQ."""
        ...

    async def clean(self, *queues: str, exchange: str) -> None:
        """Delete queues and an exchange, as far as they are there."""
        ...


class RabbitBackstage:
    """A RabbitMQ that answers."""

    def __init__(self, url: str, connection: AbstractConnection) -> None:
        self.url = url
        self._connection = connection
        transport = connection.transport
        told = transport.connection.server_properties if transport is not None else {}
        version = told.get("version", b"") if told else b""
        self._version = version.decode() if isinstance(version, bytes | bytearray) else str(version)

    @property
    def description(self) -> str:
        return f"RabbitMQ {self._version} at {Settings(url=self.url).broker_url}"

    async def letter(self, dlq: str) -> dict[str, Any]:
        async with self._connection.channel() as channel:
            queue = await channel.get_queue(dlq)
            message = await queue.get(no_ack=True, timeout=10)
        letter: dict[str, Any] = json.loads(message.body)
        return letter

    async def clean(self, *queues: str, exchange: str) -> None:
        async with self._connection.channel() as channel:
            for queue in queues:
                await channel.queue_delete(queue)
            await channel.exchange_delete(exchange)


class MemoryBackstage:
    """No RabbitMQ: a broker in this process."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self.url = server.url

    @property
    def description(self) -> str:
        return f"{self.url} (in memory)"

    async def letter(self, dlq: str) -> dict[str, Any]:
        letter: dict[str, Any] = json.loads(self._server.queue(dlq).messages[0].body)
        return letter

    async def clean(self, *queues: str, exchange: str) -> None:
        for queue in queues:
            self._server.delete_queue(queue)
        self._server.delete_exchange(exchange)


@asynccontextmanager
async def find_broker() -> AsyncGenerator[tuple[Backstage, str]]:
    """The RabbitMQ of RABBITMQ_URL or of localhost, else one in memory; and why that one."""
    url = os.environ.get("RABBITMQ_URL") or LOCALHOST
    if not url.startswith("memory:"):
        connection = await _connect(url)
        if isinstance(connection, AbstractConnection):
            async with connection:
                yield RabbitBackstage(url, connection), "a consumer process and a producer process"
            return
        why = f"no RabbitMQ: {connection}; both sides in this one process"
    else:
        why = "as RABBITMQ_URL says; both sides in this one process"
    with memory_server("demo") as server:
        yield MemoryBackstage(server), why


async def _connect(url: str) -> AbstractConnection | str:
    """A connection, or in a word why there is none."""
    try:
        address = Settings(url=url).broker_url
    except ConfigError as error:
        return str(error)
    for client in ("aio_pika", "aiormq"):  # a refusal is told in our own words
        logging.getLogger(client).setLevel(logging.CRITICAL)
    try:
        async with asyncio.timeout(5):
            return await aio_pika.connect(url)
    except TimeoutError:
        return f"{address} does not answer"
    except (OSError, aio_pika.exceptions.AMQPError) as error:
        refused = isinstance(error, aio_pika.exceptions.ProbableAuthenticationError)
        return f"{address} {'refuses the login' if refused else 'does not answer'}"
