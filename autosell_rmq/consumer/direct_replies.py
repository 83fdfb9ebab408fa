"""Replies to requesters that listen on their own connection; some such addresses cost ours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from autosell_rmq.exceptions import PublishUnknown, PublishUnroutable
from autosell_rmq.message import DIRECT_REPLY_TO, Publication

_TRIES: Final = 2  # alone: the first may have met with somebody else's cut
_MOST_DEAD: Final = 1000

type Publish = Callable[[Publication], Awaitable[None]]


class DirectReplies:
    """Publishes to direct reply addresses without letting a bad one take others with it.

    RabbitMQ closes the connection over an address whose node is gone, or that somebody made up, and all
    publishes in flight on it end as unknown. Each of those is tried again with no other one beside it: what
    is unknown then, too, is to blame itself. Its requester is remembered: its further addresses cost nothing.
    """

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._together = 0
        self._none_left = asyncio.Event()
        self._alone = asyncio.Lock()
        self._dead: dict[str, None] = {}  # requesters, the first the longest ago

    async def publish(self, reply: Publication) -> None:
        """As `Broker.publish`, to an address of this kind.

        Raises:
            PublishUnroutable: nobody is there.
        """
        requester = _requester(reply.routing_key)
        while self._alone.locked():
            async with self._alone:
                pass
        if requester in self._dead:
            raise PublishUnroutable("the requester's address is gone with its node, or was never one")
        self._together += 1
        try:
            await self._publish(reply)
        except PublishUnknown:
            pass
        else:
            return
        finally:
            self._together -= 1
            if not self._together:
                self._none_left.set()
        await self._publish_alone(reply, requester)

    async def _publish_alone(self, reply: Publication, requester: str) -> None:
        async with self._alone:
            while self._together:
                self._none_left.clear()
                await self._none_left.wait()
            for _ in range(_TRIES):
                if requester in self._dead:
                    break
                try:
                    return await self._publish(reply)
                except PublishUnknown:
                    continue
            self._dead[requester] = None
            if len(self._dead) > _MOST_DEAD:
                del self._dead[next(iter(self._dead))]
        raise PublishUnroutable("RabbitMQ closes the connection over this address: nobody is there")


def is_direct(address: str) -> bool:
    """Whether it is of this kind."""
    return address.startswith(DIRECT_REPLY_TO)


def _requester(address: str) -> str:
    """What the addresses of one requester have in common: all but the last part, a key."""
    common = address.rpartition(".")[0]
    return common if common.startswith(f"{DIRECT_REPLY_TO}.") else address
