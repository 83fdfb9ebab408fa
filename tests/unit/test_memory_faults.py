"""Faults: each is injected where the plan says, and nowhere else."""

import asyncio
from collections.abc import Iterator

import pytest

from autosell_rmq.brokers.memory import MemoryBroker, MemoryServer
from autosell_rmq.config import Settings
from autosell_rmq.exceptions import DeliveryLost, PublishNacked, PublishUnknown
from autosell_rmq.idempotency.store import Call, Note, Record, Stored
from autosell_rmq.testing import Crash, Faults, FaultyBroker, FaultyStore, cancel_caller, memory_server
from autosell_rmq.topology import Queue, Topology
from tests.support.inbox import Inbox
from tests.support.publications import send, to
from tests.support.waiting import PATIENCE, eventually


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    with memory_server() as running:
        running.declare(Topology(queues=(Queue(name="orders"),)))
        yield running


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def broker(server: MemoryServer, faults: Faults) -> FaultyBroker:
    return FaultyBroker(MemoryBroker(Settings(url=server.url)), faults)


async def test_a_fault_before_the_call_is_instead_of_it(
    server: MemoryServer, broker: FaultyBroker, faults: Faults
) -> None:
    faults.on("publish", before=PublishNacked("full"))

    with pytest.raises(PublishNacked, match="full"):
        await send(broker, to("orders"))
    assert server.queue("orders").depth == 0

    await send(broker, to("orders"))
    assert server.queue("orders").depth == 1


async def test_a_fault_after_the_call_hides_its_effect(
    server: MemoryServer, broker: FaultyBroker, faults: Faults
) -> None:
    faults.on("publish", after=PublishUnknown, times=2, skip=1)

    await send(broker, to("orders"))
    for _ in range(2):
        with pytest.raises(PublishUnknown):
            await send(broker, to("orders"))
    await send(broker, to("orders"))

    assert server.queue("orders").depth == 4


async def test_a_fault_without_end(broker: FaultyBroker, faults: Faults) -> None:
    faults.on("publish", before=PublishNacked, times=-1)

    for _ in range(5):
        with pytest.raises(PublishNacked):
            await send(broker, to("orders"))


async def test_the_caller_can_be_cancelled(
    server: MemoryServer, broker: FaultyBroker, faults: Faults
) -> None:
    faults.on("publish", after=cancel_caller)

    task = asyncio.create_task(send(broker, to("orders")))

    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.queue("orders").depth == 1


async def test_a_call_can_be_held(server: MemoryServer, broker: FaultyBroker, faults: Faults) -> None:
    hold = faults.hold("publish", "before")
    task = asyncio.create_task(send(broker, to("orders")))

    await hold.reached.wait()
    assert server.queue("orders").depth == 0
    hold.released.set()
    await task

    assert server.queue("orders").depth == 1


async def test_every_point_is_passed_before_and_after(broker: FaultyBroker, faults: Faults) -> None:
    await broker.open()
    await broker.declare(Topology())
    await send(broker, to("orders"))
    inbox = await Inbox.of(broker, "orders")
    await (await inbox.next()).fail()
    await (await inbox.next()).requeue()
    await (await inbox.next()).ack()
    requester = await broker.open_requester(lambda _: None, on_lost=lambda _: None)
    await requester.publish(to("orders"), timeout=PATIENCE)
    await requester.close()
    await inbox.subscription.cancel()
    await broker.close()

    assert faults.passed == [
        f"{point}:{side}"
        for point in (
            "open",
            "declare",
            "publish",
            "consume",
            "fail",
            "requeue",
            "ack",
            "open_requester",
            "requester.publish",
            "cancel",
        )
        for side in ("before", "after")
    ]
    assert faults.counter == 20


@pytest.mark.parametrize("n", range(1, 9))
async def test_a_crash_at_any_await_loses_nothing_and_ends_everything(server: MemoryServer, n: int) -> None:
    faults = Faults(crash_at=n)
    broker = FaultyBroker(MemoryBroker(Settings(url=server.url)), faults)

    async def scenario() -> None:
        await broker.open()
        await send(broker, to("orders", b"1"))
        inbox = await Inbox.of(broker, "orders")
        await (await inbox.next()).ack()

    with pytest.raises(Crash):
        await scenario()

    assert faults.dead
    assert faults.counter == n
    with pytest.raises(Crash):
        await send(broker, to("orders"))
    await broker.close()
    queue = server.queue("orders")
    assert (queue.depth, queue.unacked) == (1 if 4 <= n <= 7 else 0, 0)


async def test_a_dead_process_gets_no_deliveries(
    server: MemoryServer, broker: FaultyBroker, faults: Faults
) -> None:
    inbox = await Inbox.of(broker, "orders")
    faults.on("publish", before=Crash)

    with pytest.raises(Crash):
        await send(broker, to("orders"))
    server.publish(to("orders"))

    await eventually(lambda: server.queue("orders").unacked == 1)
    await asyncio.sleep(0)
    assert inbox.deliveries.empty()


async def test_a_delivery_can_come_twice(server: MemoryServer, broker: FaultyBroker, faults: Faults) -> None:
    faults.deliver_twice()
    inbox = await Inbox.of(broker, "orders")
    server.publish(to("orders", b"1"))
    server.publish(to("orders", b"2"))

    first, again, other = await inbox.take(3)

    assert (first.message.body, again.message.body, other.message.body) == (b"1", b"1", b"2")
    assert (first.message.redelivered, again.message.redelivered) == (False, True)
    for settle in (first.ack, first.requeue, first.fail):
        with pytest.raises(DeliveryLost):
            await settle()
    await again.ack()
    await other.ack()
    assert (server.queue("orders").depth, server.queue("orders").unacked) == (0, 0)


async def test_a_wrapped_broker_is_otherwise_the_same(server: MemoryServer, broker: FaultyBroker) -> None:
    assert broker.vhost == server.vhost
    assert abs(broker.now() - server.clock.now()) < 60


# --- the store ---------------------------------------------------------------------------------------


class LittleStore:
    """As much of a store as the wrapper needs."""

    durable = False
    transactional = True

    def __init__(self) -> None:
        self.done: dict[str, bytes] = {}
        self.notes: dict[str, Note] = {}

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def run_once(self, key: str, fingerprint: str, call: Call) -> Stored:
        if key not in self.done:
            run_sync = call.run_sync
            self.done[key] = await asyncio.to_thread(run_sync) if run_sync else await call.run()
        return Stored(data=self.done[key], fingerprint=fingerprint, duplicate=False)

    async def note(self, key: str, note: Note) -> None:
        self.notes[key] = note

    async def lookup(self, key: str) -> Record | None:
        data = self.done.get(key)
        return Record(state="done", fingerprint="f", data=data) if data is not None else None


class Handler:
    def __init__(self) -> None:
        self.effects = 0

    async def run(self) -> bytes:
        return self.run_sync()

    def run_sync(self) -> bytes:
        self.effects += 1
        return b"1"


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_a_store_can_fail_around_the_handler(faults: Faults, sync: bool) -> None:
    inner, handler = LittleStore(), Handler()
    store = FaultyStore(inner, faults)
    call = Call(run=handler.run, run_sync=handler.run_sync if sync else None)
    faults.on("run_once.call", before=OSError("before"), after=OSError("after"))

    with pytest.raises(OSError, match="before"):
        await store.run_once("k", "f", call)
    assert (handler.effects, inner.done) == (0, {})
    with pytest.raises(OSError, match="after"):
        await store.run_once("k", "f", call)
    assert (handler.effects, inner.done) == (1, {})

    assert (await store.run_once("k", "f", call)).data == b"1"
    assert await store.lookup("k") is not None
    assert faults.passed[-2:] == ["lookup:before", "lookup:after"]
    assert store.durable is False
    await store.open()
    await store.close()


async def test_a_store_can_fail_around_a_note(faults: Faults) -> None:
    inner = LittleStore()
    store = FaultyStore(inner, faults)
    faults.on("note", before=OSError("before"), after=OSError("after"))
    note = Note(state="failed", fingerprint="f")

    with pytest.raises(OSError, match="before"):
        await store.note("k", note)
    assert inner.notes == {}
    with pytest.raises(OSError, match="after"):
        await store.note("k", note)
    assert inner.notes == {"k": note}


async def test_a_store_can_fail_after_it_remembered(faults: Faults) -> None:
    inner, handler = LittleStore(), Handler()
    store = FaultyStore(inner, faults)
    faults.on("run_once", after=Crash)

    with pytest.raises(Crash):
        await store.run_once("k", "f", Call(run=handler.run))

    assert inner.done == {"k": b"1"}


async def test_nothing_can_be_awaited_in_a_thread(faults: Faults) -> None:
    store, handler = FaultyStore(LittleStore(), faults), Handler()
    faults.hold("run_once.call")

    with pytest.raises(TypeError, match="inject an error"):
        await store.run_once("k", "f", Call(run=handler.run, run_sync=handler.run_sync))
    assert handler.effects == 0
