"""TLS in front of the real broker: who connects is shown a certificate, and what comes through is kept."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.certificates import Pair
from tests.support.services import RABBITMQ_URL


class TLSProxy:
    """The proxy; `received` is every byte that clients have sent after their handshake."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.port = 0

    def url(self, host: str = "localhost") -> str:
        """The broker's address through here, with its login."""
        url = urlsplit(RABBITMQ_URL)
        login = url.netloc.rpartition("@")[0] or "guest:guest"
        return f"amqps://{login}@{host}:{self.port}{url.path}"


@asynccontextmanager
async def tls_proxy(shown: Pair, *, asks_for: Path | None = None) -> AsyncGenerator[TLSProxy]:
    """A proxy with the certificate `shown`; it asks clients for one of the authority `asks_for`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(shown.certificate, shown.key)
    if asks_for is not None:
        context.load_verify_locations(asks_for)
        context.verify_mode = ssl.CERT_REQUIRED
    proxy = TLSProxy()
    broker = urlsplit(RABBITMQ_URL)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection(broker.hostname, broker.port or 5672)
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(reader, far_writer, proxy.received))
            group.create_task(_copy(far_reader, writer, bytearray()))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    try:
        with suppress(OSError):
            while data := await reader.read(65536):
                kept += data
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()
