"""A proxy in front of RabbitMQ that a test can cut, stop, and let tell of an alarm."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

from pamqp.commands import Connection
from pamqp.frame import marshal

from tests.support.proxy import Proxy


class AlarmingProxy(Proxy):
    """Says to clients what RabbitMQ says while it has no memory or disk left."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        super().__init__(self._parts.hostname or "", self._parts.port or 5672)

    @property
    def url(self) -> str:
        login = self._parts.netloc.rpartition("@")[0]
        return urlunsplit(self._parts._replace(netloc=f"{login}@127.0.0.1:{self.port}"))

    def block(self) -> None:
        self.say(marshal(Connection.Blocked("low on memory"), 0))

    def unblock(self) -> None:
        self.say(marshal(Connection.Unblocked(), 0))


@asynccontextmanager
async def alarming_proxy(url: str) -> AsyncGenerator[AlarmingProxy]:
    """A running proxy, stopped at the end."""
    running = AlarmingProxy(url)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()
