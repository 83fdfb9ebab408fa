"""Requests in flight, matched to their replies by correlation id, over one reply address."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from typing import Any

from autosell_rmq.broker import Broker, Requester
from autosell_rmq.codec import parse_reply
from autosell_rmq.deadlines import Deadlines
from autosell_rmq.exceptions import (
    AutosellRmqError,
    BrokerError,
    BrokerUnavailable,
    ClosedError,
    DecodeError,
    PublishNacked,
    PublishUnknown,
    ReplyTimeout,
)
from autosell_rmq.message import Message, Publication, printable
from autosell_rmq.replies.request import Request
from autosell_rmq.waiting import WaitingRoom, pauses

logger = logging.getLogger(__name__)


class Requests:
    """Asks and waits. When the reply address is lost, what is pending is asked again under its ids.

    Args:
        broker: opens the reply address, on first use and whenever it was lost.
        room: where requests wait that come while the broker is away; they keep their place to the end.
        publish_timeout: seconds for one confirm, and for all attempts where each is refused.
        waits_when_blocked: whether an alarm of the broker is waited out like an outage.

    Attributes:
        late: replies that came when nobody waited any more; they are dropped.
    """

    def __init__(
        self, broker: Broker, room: WaitingRoom, *, publish_timeout: float, waits_when_blocked: bool
    ) -> None:
        self._broker = broker
        self._room = room
        self._publish_timeout = publish_timeout
        self._waits_when_blocked = waits_when_blocked
        self._requester: Requester | None = None
        self._lost: list[Requester] = []
        self._losses = 0
        self._pending: dict[str, list[Request]] = {}
        self._sending: asyncio.Task[None] | None = None
        self._deadlines = Deadlines()
        self._closed = False
        self.late = 0

    @property
    def in_flight(self) -> int:
        """Requests that wait for their reply."""
        return sum(map(len, self._pending.values()))

    async def ask(
        self, publication: Publication, *, queue: str, timeout: float, patience: float
    ) -> dict[str, Any]:
        """Publish a request and return its reply.

        Args:
            publication: the request, with a correlation id.
            queue: its name, for people.
            timeout: seconds to wait for the reply; meanwhile it is sent again whenever it may have been lost.
            patience: how many of them it may take until it is sent for the first time.

        Raises:
            ReplyTimeout: none came within `timeout` seconds, though the request was accepted.
            PublishUnroutable: there is no such queue.
            PublishNacked: the broker refused the request.
            PublishUnknown: no confirm and no reply came in time.
            BrokerUnavailable: it was never sent.
            DecodeError: what came back is no JSON object.
        """
        if self._closed:
            raise ClosedError("the producer is closed")
        problem = self._broker.problem
        if problem is not None and self._is_refused:
            raise BrokerUnavailable(problem)
        request = Request(
            publication,
            problem,
            self._deadlines,
            timeout=timeout,
            patience=patience,
            refusals=min(patience, self._publish_timeout),
        )
        correlation_id = publication.properties.correlation_id or ""
        waits = problem is not None and patience > 0
        with self._room.place(publication, problem) if waits else nullcontext():
            self._pending.setdefault(correlation_id, []).append(request)
            try:
                with request.within:
                    if self._requester is None:
                        self._send_soon()
                    else:
                        await self._send(self._requester, request)
                    return await request.reply
            except TimeoutError:
                error = request.verdict or ReplyTimeout(queue, correlation_id, timeout)
                raise error from request.problem if error is not request.problem else None
            finally:
                request.is_over = True
                self._forget(correlation_id, request)

    async def close(self) -> None:
        """Give up what is pending (`ClosedError`) and the reply address."""
        self._closed = True
        if self._sending is not None:
            self._sending.cancel()
        for request in self._all():
            request.end(ClosedError("the producer was closed before the reply came"))
        if self._requester is not None:
            self._lost.append(self._requester)
            self._requester = None
        await self._close_lost()

    # --- on the way out ---------------------------------------------------------------------------

    def _send_soon(self) -> None:
        if not self._closed and (self._sending is None or self._sending.done()):
            self._sending = asyncio.get_running_loop().create_task(self._send_due())

    async def _send_due(self) -> None:
        """Send what is due, until nothing is; get a reply address for it first."""
        clock = asyncio.get_running_loop().time
        for pause in pauses():
            began = clock()
            if await self._open():
                await self._send_all()
            if not self._due():
                await self._close_lost()
                if not self._due():
                    return
            await asyncio.sleep(max(began + pause - clock(), 0.0))

    async def _open(self) -> bool:
        if self._requester is not None:
            return True
        losses = self._losses
        try:
            requester = await self._broker.open_requester(self._on_reply, on_lost=self._on_lost)
        except BrokerUnavailable as error:
            self._room.tell(error)
            for request in self._due():
                request.waits(error)
        except AutosellRmqError as error:
            for request in self._due():
                request.end(error)
        else:
            if losses == self._losses:
                self._requester = requester
                return True
            self._lost.append(requester)  # as soon as it was opened
        return False

    async def _send_all(self) -> None:
        requester, due = self._requester, self._due()
        assert requester is not None
        results = await asyncio.gather(
            *(self._send(requester, request) for request in due), return_exceptions=True
        )
        for request, result in zip(due, results, strict=True):
            if isinstance(result, Exception):
                request.end(result)

    async def _send(self, requester: Requester, request: Request) -> None:
        """Publish it once; what failed in passing becomes due again."""
        if requester is not self._requester:
            return
        request.sends()
        try:
            await requester.publish(request.publication, timeout=self._publish_timeout)
        except (PublishUnknown, BrokerUnavailable, PublishNacked) as error:
            request.failed(error)
            if self._is_refused and not request.may_be_stored:
                request.end(error)
            elif requester is self._requester:  # else it became due when that one was lost
                request.is_due = True
                self._send_soon()
        except AutosellRmqError as error:
            request.refused(error)
        else:
            request.confirmed()

    def _on_lost(self, error: BrokerError) -> None:
        self._losses += 1
        if self._requester is not None:
            self._lost.append(self._requester)
            self._requester = None
        for request in self._all():
            request.is_due = True
            request.waits(error)
        if self._pending:
            logger.warning(
                "the reply address was lost, %d requests are sent again: %s", self.in_flight, error
            )
            self._send_soon()

    @property
    def _is_refused(self) -> bool:
        return self._broker.blocked and not self._waits_when_blocked

    async def _close_lost(self) -> None:
        lost, self._lost = self._lost, []
        await asyncio.gather(*(requester.close() for requester in lost))

    # --- on the way back --------------------------------------------------------------------------

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

    # --- what is pending --------------------------------------------------------------------------

    def _all(self) -> list[Request]:
        return [r for requests in self._pending.values() for r in requests if not r.reply.done()]

    def _due(self) -> list[Request]:
        return [request for request in self._all() if request.is_due]

    def _forget(self, correlation_id: str, request: Request) -> None:
        requests = self._pending.get(correlation_id, [])
        if request in requests:
            requests.remove(request)
            if not requests:
                del self._pending[correlation_id]
        if request.reply.done() and not request.reply.cancelled():
            request.reply.exception()  # read once, or asyncio reports it as never retrieved
