"""Requests in flight, matched to their replies by correlation id, over one reply address."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from autosell_rmq.broker import Broker, Requester
from autosell_rmq.codec import parse_reply
from autosell_rmq.exceptions import (
    BrokerError,
    BrokerUnavailable,
    ClosedError,
    DecodeError,
    PublishNacked,
    PublishUnknown,
    PublishUnroutable,
    ReplyTimeout,
)
from autosell_rmq.message import Message, Publication, printable

logger = logging.getLogger(__name__)

_RESEND_WAIT = 1.0  # seconds between attempts to get a reply address back


@dataclass(slots=True, eq=False)
class _Request:
    publication: Publication
    reply: asyncio.Future[dict[str, Any]] = field(repr=False)
    problem: BrokerError | None  # why it is not known to be accepted; None once it is confirmed


class Requests:
    """Asks and waits. When the reply address is lost, what is pending is asked again under its ids.

    Attributes:
        late: replies that came when nobody waited any more; they are dropped.
    """

    def __init__(self, broker: Broker, *, publish_timeout: float) -> None:
        self._broker = broker
        self._publish_timeout = publish_timeout
        self._requester: Requester | None = None
        self._opening = asyncio.Lock()
        self._pending: dict[str, list[_Request]] = {}
        self._resending: asyncio.Task[None] | None = None
        self._closed = False
        self.late = 0

    @property
    def in_flight(self) -> int:
        """Requests that wait for their reply."""
        return sum(map(len, self._pending.values()))

    async def ask(self, publication: Publication, *, queue: str, timeout: float) -> dict[str, Any]:
        """Publish a request and return its reply.

        Raises:
            ReplyTimeout: none came within `timeout` seconds, though the request was accepted.
            PublishUnroutable: there is no such queue.
            PublishNacked: the broker refused the request.
            PublishUnknown: no confirm and no reply came in time.
            BrokerUnavailable: there was no connection.
            DecodeError: what came back is no JSON object.
        """
        correlation_id = publication.properties.correlation_id
        assert correlation_id is not None
        problem = BrokerUnavailable(f"no reply address could be opened for a request to queue {queue!r}")
        request = _Request(publication, asyncio.get_running_loop().create_future(), problem)
        try:
            async with asyncio.timeout(timeout):
                requester = await self._open()
                self._pending.setdefault(correlation_id, []).append(request)
                await self._send(requester, request)
                return await request.reply
        except TimeoutError as error:
            if isinstance(error, BrokerError):
                raise
            raise request.problem or ReplyTimeout(queue, correlation_id, timeout) from None
        finally:
            self._forget(correlation_id, request)

    async def close(self) -> None:
        """Give up what is pending (`ClosedError`) and the reply address."""
        self._closed = True
        if self._resending is not None:
            self._resending.cancel()
        for requests in self._pending.values():
            for request in requests:
                if not request.reply.done():
                    request.reply.set_exception(ClosedError("the producer was closed before the reply came"))
        requester, self._requester = self._requester, None
        if requester is not None:
            await requester.close()

    async def _open(self) -> Requester:
        async with self._opening:
            if self._closed:
                raise ClosedError("the producer is closed")
            if self._requester is None:
                self._requester = await self._broker.open_requester(self._on_reply, on_lost=self._on_lost)
            return self._requester

    async def _send(self, requester: Requester, request: _Request) -> None:
        """Publish; with an unknown outcome the request stays pending, to be asked again."""
        request.problem = PublishUnknown("no confirm came for a request")
        try:
            await requester.publish(request.publication, timeout=self._publish_timeout)
        except (PublishUnroutable, PublishNacked):
            if request.reply.done():  # an earlier copy was answered meanwhile
                return
            raise
        except (PublishUnknown, BrokerUnavailable) as error:
            request.problem = error
            self._resend_soon()
        else:
            request.problem = None

    def _on_reply(self, message: Message) -> None:
        try:
            reply = parse_reply(message.body)
        except DecodeError as error:
            self._resolve(message.correlation_id, DecodeError(f"the reply cannot be read: {error}"))
            return
        inside = reply.get("correlation_id")
        self._resolve(message.correlation_id or (inside if isinstance(inside, str) else None), reply)

    def _resolve(self, correlation_id: str | None, result: dict[str, Any] | DecodeError) -> None:
        for request in self._pending.get(correlation_id or "", ()):
            if request.reply.done():
                continue
            if isinstance(result, DecodeError):
                request.reply.set_exception(result)
            else:
                request.reply.set_result(result)
            return
        self.late += 1
        logger.info("a reply came too late and is dropped, correlation_id=%s", printable(correlation_id))

    def _on_lost(self, error: BrokerError) -> None:
        self._requester = None
        for requests in self._pending.values():
            for request in requests:
                request.problem = error
        if self._pending:
            logger.warning(
                "the reply address was lost, %d requests are sent again: %s", self.in_flight, error
            )
            self._resend_soon()

    def _resend_soon(self) -> None:
        if not self._closed and (self._resending is None or self._resending.done()):
            self._resending = asyncio.get_running_loop().create_task(self._resend())

    async def _resend(self) -> None:
        """Get a reply address back, then ask everything pending again."""
        while self._pending and not self._closed:
            try:
                requester = await self._open()
            except BrokerError as error:
                logger.warning("no reply address yet: %s", error)
                await asyncio.sleep(_RESEND_WAIT)
                continue
            waiting = [r for requests in self._pending.values() for r in requests if not r.reply.done()]
            results = await asyncio.gather(
                *(self._send(requester, request) for request in waiting), return_exceptions=True
            )
            for request, result in zip(waiting, results, strict=True):
                if isinstance(result, BrokerError) and not request.reply.done():
                    request.reply.set_exception(result)
            if self._requester is requester:
                return

    def _forget(self, correlation_id: str, request: _Request) -> None:
        requests = self._pending.get(correlation_id, [])
        if request in requests:
            requests.remove(request)
            if not requests:
                del self._pending[correlation_id]
        if request.reply.done() and not request.reply.cancelled():
            request.reply.exception()  # read once, or asyncio reports it as never retrieved
