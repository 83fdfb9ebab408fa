"""A world in which a worker dies at any await, and a ledger that knows what must hold all the same."""

import asyncio
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Literal, override

from autosell_rmq.broker import Delivery
from autosell_rmq.brokers.memory import MemoryBroker, MemoryServer, VirtualClock
from autosell_rmq.codec import decode, encode
from autosell_rmq.config import HandlerOptions, Settings
from autosell_rmq.consumer import ConsumerGroup
from autosell_rmq.exceptions import InProgress, PublishError, PublishUnknown, Reject
from autosell_rmq.idempotency import Call, IdempotencyStore, Note, Record, Stored
from autosell_rmq.message import NO_HEADERS, Message, Properties, Publication
from autosell_rmq.pipeline import Handler, Statistics
from autosell_rmq.testing import Crash, Faults, FaultyBroker, FaultyStore
from autosell_rmq.topology import Queue, Topology
from tests.support.waiting import eventually

QUEUE, DLQ, REPLIES = "orders", "orders_dlq", "replies"
RETRIES = 2


class Database:
    """What outlives the workers: committed effects and results. A row lock dies with its worker."""

    def __init__(self) -> None:
        self.done: dict[str, Record] = {}
        self.notes: dict[str, Note] = {}
        self.committed: Counter[str] = Counter()
        self.locks: dict[str, Session] = {}


class Session(IdempotencyStore):
    """One worker's connection to the database: effect and result are committed together."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    @override
    def durable(self) -> bool:
        return True

    @property
    @override
    def transactional(self) -> bool:
        return False

    @override
    async def open(self) -> None: ...

    @override
    async def close(self) -> None:
        locks = self._database.locks
        for key in [key for key, holder in locks.items() if holder is self]:
            del locks[key]

    @override
    async def run_once(self, key: str, fingerprint: str, call: Call) -> Stored:
        database = self._database
        record = database.done.get(key)
        if record is not None and record.data is not None:
            return Stored(data=record.data, fingerprint=record.fingerprint, duplicate=True)
        if key in database.locks:
            raise InProgress(key)
        database.locks[key] = self
        try:
            data = await call.run()
        finally:
            if database.locks.get(key) is self:
                del database.locks[key]
        database.committed[json.loads(data)["done"]] += 1
        database.done[key] = Record(state="done", fingerprint=fingerprint, data=data)
        return Stored(data=data, fingerprint=fingerprint, duplicate=False)

    @override
    async def lookup(self, key: str) -> Record | None:
        return self._database.done.get(key)

    @override
    async def note(self, key: str, note: Note) -> None:
        self._database.notes[key] = note


@dataclass(eq=False)
class Worker:
    """A process: its consumers, its connection, its session, and when it dies."""

    group: ConsumerGroup
    broker: MemoryBroker
    session: Session
    faults: Faults


class World:
    """One server, one database, one sender, and two places for workers that die and come back."""

    def __init__(self, *, kind: Literal["quorum", "classic"] = "quorum") -> None:
        self.kind: Literal["quorum", "classic"] = kind
        self.clock = VirtualClock(start=1_000_000.0)
        self.server = MemoryServer(clock=self.clock)
        self.database = Database()
        self.sender = MemoryBroker(Settings(url="memory://"), server=self.server)
        self.replies: dict[str, list[bytes]] = defaultdict(list)
        self.sent: Counter[str] = Counter()
        self.rejected: set[str] = set()
        self.failures_left: Counter[str] = Counter()
        self._workers: dict[int, Worker] = {}
        self._messages = 0

    async def open(self) -> None:
        asyncio.get_running_loop().set_exception_handler(_only_crashes)
        await self.sender.open()
        await self.sender.declare(Topology(queues=(Queue(name=REPLIES),)))
        await self.sender.consume(
            REPLIES, self._on_reply, prefetch=1000, on_lost=lambda _: None, arguments=NO_HEADERS
        )

    async def close(self) -> None:
        for place in list(self._workers):
            await self.kill(place)
        await self.sender.close()

    # --- what happens -----------------------------------------------------------------------------

    async def send(self, identity: str, *, failures: int = 0, reject: bool = False) -> None:
        """A request is accepted; the handler will fail `failures` times in all for this id."""
        self._messages += 1
        self.sent[identity] += 1
        self.failures_left.setdefault(identity, failures)
        if reject:
            self.rejected.add(identity)
        body = encode({"id": identity, "copy": self._messages}, limit=1000)
        properties = Properties(correlation_id=identity, message_id=f"m{self._messages}", reply_to=REPLIES)
        await self.sender.publish(Publication(body=body, routing_key=QUEUE, properties=properties), timeout=5)
        await self.settle()

    async def start(self, place: int = 0, *, crash_at: int | None = None) -> Faults:
        """A worker starts; it dies at its `crash_at`-th await of a seam."""
        assert place not in self._workers
        faults = Faults(crash_at=crash_at)
        settings = Settings(
            url="memory://", retry_delay=1, backoff=0.001, max_backoff=0.001, busy_timeout=0.001, prefetch=5
        )
        broker = MemoryBroker(settings, server=self.server)
        await broker.open()
        session = Session(self.database)
        options = HandlerOptions.resolve(QUEUE, settings, max_retries=RETRIES, queue_type=self.kind)
        group = ConsumerGroup(
            FaultyBroker(broker, faults),
            [(Handler(self._handle), options)],
            settings=settings,
            store=FaultyStore(session, faults),
            statistics=Statistics(),
        )
        self._workers[place] = Worker(group, broker, session, faults)
        try:
            await group.start()
        except Crash:
            await self.kill(place)
        await self.settle()
        return faults

    async def kill(self, place: int = 0) -> None:
        """The worker dies here and now; the broker and the database take back what it had in hand.

        Its tasks live on, as far as the next await of a seam: there each one crashes.
        """
        worker = self._workers.pop(place, None)
        if worker is not None:
            worker.faults.dead = True
            await worker.session.close()
            await worker.broker.close()
            await self.settle()

    async def drain(self, place: int = 0) -> None:
        """The worker stops gracefully, unless it has died."""
        worker = self._workers.get(place)
        if worker is None:
            return
        try:
            if not worker.faults.dead:
                await worker.group.drain(1)
        except Crash:
            pass
        await self.kill(place)

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    async def settle(self) -> None:
        """Let everything that can happen now happen."""
        await self.clock.advance(0)

    async def end(self) -> None:
        """A healthy worker gets all the time it needs."""
        for place in list(self._workers):
            await self.kill(place)
        await self.start()
        for _ in range(20):
            await self.pass_time(64)
            await eventually(lambda: self._at_rest)

    @property
    def _at_rest(self) -> bool:
        queue = self.server.queue(QUEUE)
        return queue.depth + queue.unacked == 0

    def fail_publishes(self, place: int, error: type[PublishError], times: int) -> None:
        """The next publishes of a worker are refused, or stored though it cannot know."""
        worker = self._workers.get(place)
        if worker is None:
            return
        if error is PublishUnknown:
            worker.faults.on("publish", after=error, times=times)
        else:
            worker.faults.on("publish", before=error, times=times)

    # --- what must hold ---------------------------------------------------------------------------

    def check(self) -> None:
        """Nothing lost, one effect for each id, equal replies, every rejection in the DLQ and noted."""
        for identity, times in self.sent.items():
            answers = self.replies[identity]
            assert len(answers) >= times, f"{identity}: {times} accepted, {len(answers)} answered"
            assert len(set(answers)) == 1, f"{identity}: different replies {set(answers)}"
            effects = self.database.committed[identity]
            assert effects == (identity not in self.rejected), f"{identity}: {effects} effects"
        letters = [self._read(message) for message in self.server.queue(DLQ).messages]
        assert {letter["correlation_id"] for letter in letters} == self.rejected
        assert {letter["reason_code"] for letter in letters} <= {"rejected"}
        assert {note.correlation_id for note in self.database.notes.values()} == self.rejected
        queue = self.server.queue(QUEUE)
        assert (queue.depth, queue.unacked) == (0, 0)

    # ----------------------------------------------------------------------------------------------

    async def _handle(self, payload: dict[str, Any], message: Message) -> dict[str, str]:
        identity = payload["id"]
        for _ in range(3):
            await asyncio.sleep(0)
        if identity in self.rejected:
            raise Reject("not this one")
        if self.failures_left[identity] > 0:
            self.failures_left[identity] -= 1
            raise ValueError("not yet")
        return {"done": identity, "by": payload["copy"]}

    def _on_reply(self, delivery: Delivery) -> None:
        message = delivery.message
        self.replies[str(message.correlation_id)].append(message.body)

    @staticmethod
    def _read(message: Message) -> dict[str, Any]:
        letter = decode(message.body)
        assert isinstance(letter, dict)
        return letter


def _only_crashes(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A task that died with its process is no news."""
    if not isinstance(context.get("exception"), Crash):
        loop.default_exception_handler(context)
