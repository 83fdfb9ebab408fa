"""The private node of the chaos tests: its faults, and the moment when it is back."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from scripts.services import amqp_answers
from tests.support.private_broker import PrivateBroker, private_broker
from tests.support.waiting import eventually

_BOOT = 120.0  # seconds
_YOUNG = 2.0  # seconds
# The command, what raises the alarm, what ends it.
_ALARMS = {
    "memory": ("set_vm_memory_high_watermark", "0.00001", "0.4"),
    "disk": ("set_disk_free_limit", "100000GB", "50MB"),
}
_USUAL_CONSUMER_TIMEOUT = 1_800_000  # ms


@dataclass
class Node:
    """One RabbitMQ, to be broken."""

    broker: PrivateBroker

    @property
    def url(self) -> str:
        return self.broker.url

    @property
    def port(self) -> int:
        return self.broker.port

    def answers(self) -> bool:
        """Whether it speaks AMQP right now."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return amqp_answers(connection)
        except OSError:
            return False

    def restored(self) -> None:
        """Start it if it is down."""
        if not self.answers():
            self.broker.start()

    async def ctl(self, *arguments: str) -> str:
        return await asyncio.to_thread(self.broker.ctl, *arguments)

    async def rows(self, what: str, *columns: str) -> list[dict[str, Any]]:
        """``rabbitmqctl list_…`` as data."""
        rows: list[dict[str, Any]] = json.loads(await self.ctl(what, *columns, "--formatter", "json"))
        return rows

    async def killed(self, seconds: float) -> float:
        """SIGKILL it, let it be down so long at least, start it; returns the moment when it speaks again.

        What was declared just now is given a moment first: RabbitMQ may lose a quorum queue that is younger.
        """
        await asyncio.sleep(_YOUNG)
        await asyncio.to_thread(self.broker.kill)
        await eventually(lambda: not self.answers())
        await asyncio.sleep(seconds)
        booting = asyncio.create_task(asyncio.to_thread(self.broker.start))
        try:
            return await self.back()
        finally:
            await booting

    async def back(self) -> float:
        """Wait until it speaks; returns when that was."""

        async def speaks() -> bool:
            return await asyncio.to_thread(self.answers)

        await eventually(speaks, within=_BOOT)
        return time.monotonic()

    async def close_all_connections(self) -> None:
        await self.ctl("close_all_connections", "a fault on purpose")

    @asynccontextmanager
    async def alarm(self, resource: str) -> AsyncGenerator[None]:
        """Of ``memory`` or ``disk``: it takes no messages meanwhile."""
        limit, alarmed, usual = _ALARMS[resource]
        await self.ctl(limit, alarmed)
        try:
            yield
        finally:
            await self.ctl(limit, usual)

    @asynccontextmanager
    async def consumer_timeout(self, seconds: float) -> AsyncGenerator[None]:
        """Channels whose deliveries are unsettled for so long are closed."""
        await self._set_consumer_timeout(int(seconds * 1000))
        try:
            yield
        finally:
            await self._set_consumer_timeout(_USUAL_CONSUMER_TIMEOUT)

    async def _set_consumer_timeout(self, milliseconds: int) -> None:
        await self.ctl("eval", f"application:set_env(rabbit, consumer_timeout, {milliseconds}).")


@contextmanager
def private_node() -> Generator[Node]:
    """A running node, gone at the end; see `private_broker`."""
    with private_broker() as broker:
        yield Node(broker)
