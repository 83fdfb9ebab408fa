"""The broker of a test: it keeps what the code under test sends until the test lets it through."""

from __future__ import annotations

import contextvars
import json
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, override

from autosell_rmq.brokers.memory import MemoryServer, VirtualClock
from autosell_rmq.exceptions import PublishUnroutable, Reject
from autosell_rmq.message import FIRST_EXCHANGE, REASON_CODE, REPLY_TYPE, Publication
from autosell_rmq.testing.letters import SentMessage, decoded
from autosell_rmq.topology import Topology, is_delay_name

type Answer = Callable[[Any], object]


class RecordingServer(MemoryServer):
    """Records what is sent. Requests go on to their handler or their answer; everything else is held.

    Attributes:
        sent: in the order of sending.
        held: what was sent and waits for the test to release it.
        answers: by queue, what another service does with the data of a request.
        on_change: called, in any thread, when a message has gone somewhere.
    """

    def __init__(self) -> None:
        self.virtual_clock = VirtualClock()
        super().__init__(f"test-{uuid.uuid4().hex}", clock=self.virtual_clock)
        self.sent: list[SentMessage] = []
        self.held: deque[Publication] = deque()
        self.answers: dict[str, Answer] = {}
        self.on_change: Callable[[], None] = lambda: None
        self._of_the_test: set[str] = set()
        self._on_their_way: set[str | None] = set()  # message ids; copies and dead letters keep them

    def let_pass(self, message_id: str) -> None:
        """The test itself sends it."""
        self._of_the_test.add(message_id)

    @property
    def own(self) -> list[str]:
        """The queues that somebody consumes."""
        with self.lock:
            return [name for name, queue in self.entities.queues.items() if queue.consumers]

    @property
    def is_idle(self) -> bool:
        """Whether no message waits for a handler of ours, or is in one's hands."""
        with self.lock:
            return not any(self.queue(name).depth or self.queue(name).unacked for name in self.own)

    @property
    def only_delays(self) -> bool:
        """Whether nothing will happen before something in the delay line is due."""
        with self.lock:
            return self.is_idle and self._delays

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing will happen at all."""
        with self.lock:
            return self.is_idle and not self._delays

    @property
    def _delays(self) -> bool:
        return any(queue.depth for name, queue in self.entities.queues.items() if is_delay_name(name))

    @override
    def declare(self, topology: Topology) -> None:
        # Queues of other services are taken to exist: a delayed send looks for its own first.
        known = self.entities.queues
        queues = tuple(
            replace(queue, passive=queue.passive and queue.name in known) for queue in topology.queues
        )
        super().declare(replace(topology, queues=queues))

    @override
    def publish(self, publication: Publication) -> None:
        # As over a network: a handler's context does not descend from its sender's.
        contextvars.Context().run(self._publish, publication)

    def _publish(self, publication: Publication) -> None:
        if self._is_consumers(publication):
            super().publish(publication)
        elif publication.properties.message_id in self._of_the_test:
            self._pass_on(publication)
        else:
            self.sent.append(SentMessage.of(publication))
            self._sort(publication)
        self.on_change()

    def release(self, publication: Publication) -> bool:
        """Let a held message through; False where no handler gets it."""
        message = SentMessage.of(publication)
        if message.queue and message.queue not in self.own:
            return False
        try:
            self._pass_on(replace(publication, mandatory=True))
        except PublishUnroutable:  # no handler is bound to that event
            return False
        self.on_change()
        return True

    def _sort(self, publication: Publication) -> None:
        """What the code under test has sent: asked, answered or held."""
        queue = publication.routing_key
        if not publication.properties.reply_to:
            self.held.append(publication)
        elif queue in self.answers:
            super().publish(answered(publication, self.answers[queue]))
        elif queue in self.own:
            self._pass_on(publication)
        else:
            raise PublishUnroutable(
                f"nobody here handles a request to {queue!r}, and the test has no answer for it:"
                f" rmq.answer({queue!r}, …)"
            )

    def _pass_on(self, publication: Publication) -> None:
        self._on_their_way.add(publication.properties.message_id)
        super().publish(publication)

    def _is_consumers(self, publication: Publication) -> bool:
        properties = publication.properties
        return (
            properties.type == REPLY_TYPE
            or REASON_CODE in properties.headers
            or (FIRST_EXCHANGE in properties.headers and properties.message_id in self._on_their_way)
        )


def answered(request: Publication, answer: Answer) -> Publication:
    """The reply of another service, as the test has it."""
    correlation_id = request.properties.correlation_id
    reply: dict[str, object] = {"success": True, "data": None, "correlation_id": correlation_id}
    try:
        reply["data"] = answer(decoded(request.body))
    except Exception as error:  # noqa: BLE001 - the other service has failed, as the test wants it
        code = "rejected" if isinstance(error, Reject) else "max_retries_exceeded"
        reply |= {"success": False, "error": f"{type(error).__name__}: {error}", "error_code": code}
    return Publication(
        body=json.dumps(reply).encode(),
        routing_key=request.properties.reply_to or "",
        properties=replace(
            request.properties, reply_to=None, type=REPLY_TYPE, message_id=uuid.uuid4().hex, headers={}
        ),
    )
