"""What only the server in memory has: its life, its looks, and the corners of its queues."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from autosell_rmq.broker import Delivery
from autosell_rmq.brokers import create_broker
from autosell_rmq.brokers.memory import MemoryBroker, MemoryServer, SystemClock
from autosell_rmq.config import Settings
from autosell_rmq.exceptions import (
    AccessRefused,
    BrokerUnavailable,
    PublishNacked,
    QueueNotFound,
    TopologyMismatch,
)
from autosell_rmq.message import NO_HEADERS, Headers, Properties, Publication
from autosell_rmq.testing import VirtualClock, memory_server
from autosell_rmq.topology import Exchange, Queue, QueueBinding, Topology, delay_hop, delay_name, way_home
from tests.support.inbox import Inbox
from tests.support.publications import send, send_bodies, to
from tests.support.waiting import eventually


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(start=1_700_000_000.0)


@pytest.fixture
def server(clock: VirtualClock) -> Iterator[MemoryServer]:
    with memory_server(clock=clock) as running:
        yield running


@pytest.fixture
def broker(server: MemoryServer) -> MemoryBroker:
    return MemoryBroker(Settings(url=server.url))


def declare(server: MemoryServer, name: str, arguments: Headers = NO_HEADERS) -> None:
    server.declare(Topology(queues=(Queue(name=name, arguments=arguments),)))


# --- servers -----------------------------------------------------------------------------------------


async def test_one_url_is_one_server() -> None:
    with memory_server("shop") as server:
        declare(server, "orders")
        one, two = (create_broker(Settings(url="memory://shop")) for _ in range(2))
        other = create_broker(Settings(url="memory://elsewhere"))

        await send(one, to("orders"))
        await send(two, to("orders"))

        assert server.queue("orders").depth == 2
        await other.declare(Topology(queues=(Queue(name="orders"),)))
        assert server.queue("orders").depth == 2


async def test_a_vhost_is_a_server_of_its_own() -> None:
    one, two = (MemoryBroker(Settings(url=url)) for url in ("memory://shop/a", "memory://shop/b"))

    assert one.server is not two.server
    assert (one.vhost, two.vhost) == ("a", "b")
    assert one.server.url == "memory://shop/a"


def test_a_server_is_forgotten_after_its_test() -> None:
    with memory_server("shop") as first:
        pass
    with memory_server("shop") as second:
        assert second is not first
        assert MemoryBroker(Settings(url=second.url)).server is second


async def test_a_broker_may_be_given_its_server(clock: VirtualClock) -> None:
    server = MemoryServer(clock=clock)

    broker = MemoryBroker(Settings(url="memory://ignored"), server=server)

    assert broker.server is server
    assert broker.now() == clock.now()
    assert broker.vhost == "/"


# --- looking at a queue ------------------------------------------------------------------------------


async def test_a_queue_shows_what_waits_and_what_is_in_hand(
    server: MemoryServer, broker: MemoryBroker
) -> None:
    declare(server, "orders", {"x-max-priority": 9})
    await send(broker, to("orders", b"low"), to("orders", b"high", Properties(priority=5)))
    queue = server.queue("orders")
    assert [message.body for message in queue.messages] == [b"high", b"low"]

    inbox = await Inbox.of(broker, "orders", prefetch=1)
    delivery = await inbox.next()

    assert (queue.depth, queue.unacked, len(queue.consumers)) == (1, 1, 1)
    await delivery.ack()
    await inbox.next()
    assert (queue.depth, queue.unacked) == (0, 1)


async def test_purging_leaves_what_is_in_hand(server: MemoryServer, broker: MemoryBroker) -> None:
    declare(server, "orders")
    await send_bodies(broker, "orders", [b"1", b"2", b"3"])
    inbox = await Inbox.of(broker, "orders", prefetch=1)
    delivery = await inbox.next()

    assert server.queue("orders").purge() == 2

    await delivery.requeue()
    assert (await inbox.next()).message.body == b"1"


async def test_a_missing_queue_is_an_error(server: MemoryServer) -> None:
    with pytest.raises(QueueNotFound, match="orders"):
        server.queue("orders")
    server.delete_queue("orders")
    server.delete_exchange("events")


async def test_a_delivery_can_be_settled_after_its_queue_is_gone(
    server: MemoryServer, broker: MemoryBroker
) -> None:
    declare(server, "orders")
    await send_bodies(broker, "orders", [b"1", b"2"])
    first, second = await (await Inbox.of(broker, "orders")).take(2)
    server.delete_queue("orders")
    declare(server, "orders")

    await first.requeue()
    await second.ack()

    assert server.queue("orders").depth == 0


async def test_headers_are_the_receivers_own(server: MemoryServer, broker: MemoryBroker) -> None:
    declare(server, "orders")
    await send(broker, to("orders", properties=Properties(headers={"a": [1]})))
    inbox = await Inbox.of(broker, "orders")
    delivery = await inbox.next()
    value = delivery.message.headers["a"]
    assert isinstance(value, list)

    value.append("changed")
    await delivery.requeue()

    assert (await inbox.next()).message.headers == {"a": [1]}


# --- connections -------------------------------------------------------------------------------------


async def test_cut_connections_give_everything_back_uncounted_by_neighbours(
    server: MemoryServer, broker: MemoryBroker
) -> None:
    declare(server, "orders", {"x-queue-type": "quorum"})
    await send_bodies(broker, "orders", [b"1", b"2", b"3", b"4"])
    inboxes = [await Inbox.of(broker, "orders", prefetch=2), await Inbox.of(broker, "orders", prefetch=2)]
    for inbox in inboxes:
        await inbox.take(2)

    server.close_connections()

    for inbox in inboxes:
        assert isinstance(await inbox.until_lost(), BrokerUnavailable)
    messages = server.queue("orders").messages
    assert [message.body for message in messages] == [b"1", b"2", b"3", b"4"]
    assert [message.delivery_count for message in messages] == [1, 1, 1, 1]
    await send(broker, to("orders"))


async def test_a_stopped_server_lets_nobody_in(server: MemoryServer, broker: MemoryBroker) -> None:
    declare(server, "orders")
    await send(broker, to("orders"))

    server.stop()
    for call in (broker.open(), send(broker, to("orders")), Inbox.of(broker, "orders")):
        with pytest.raises(BrokerUnavailable):
            await call

    server.start()
    await send(broker, to("orders"))
    assert server.queue("orders").depth == 2


async def test_a_cancelled_publish_took_place(server: MemoryServer, broker: MemoryBroker) -> None:
    declare(server, "orders")
    publishing = asyncio.create_task(send(broker, to("orders")))
    await asyncio.sleep(0)

    publishing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert server.queue("orders").depth == 1


async def test_a_consumer_that_fails_leaves_the_others_alone(
    server: MemoryServer, broker: MemoryBroker
) -> None:
    declare(server, "orders")
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    seen: list[bytes] = []

    def on_delivery(delivery: Delivery) -> None:
        seen.append(delivery.message.body)
        raise RuntimeError("a callback must not raise")

    await broker.consume("orders", on_delivery, prefetch=5, on_lost=lambda _: None, arguments={})
    await send_bodies(broker, "orders", [b"1", b"2"])

    await eventually(lambda: len(problems) == 2)
    assert seen == [b"1", b"2"]


# --- several loops -----------------------------------------------------------------------------------


def test_connections_of_several_threads_share_a_server() -> None:
    with memory_server() as server:
        declare(server, "orders")
        received: list[bytes] = []
        consuming = threading.Event()

        async def serve() -> None:
            broker = MemoryBroker(Settings(url=server.url))
            inbox = await Inbox.of(broker, "orders", prefetch=7)
            consuming.set()
            for _ in range(300):
                delivery = await inbox.next()
                received.append(delivery.message.body)
                await delivery.ack()
            await broker.close()

        async def produce(name: str) -> None:
            broker = MemoryBroker(Settings(url=server.url))
            await send_bodies(broker, "orders", [f"{name}{n}".encode() for n in range(100)])
            await broker.close()

        consumer = threading.Thread(target=lambda: asyncio.run(serve()))
        consumer.start()
        assert consuming.wait(10)
        producers = [threading.Thread(target=lambda n=n: asyncio.run(produce(n))) for n in "abc"]
        for producer in producers:
            producer.start()
        for thread in (*producers, consumer):
            thread.join(10)
            assert not thread.is_alive()

        assert sorted(received) == sorted(f"{name}{n}".encode() for name in "abc" for n in range(100))
        assert (server.queue("orders").depth, server.queue("orders").unacked) == (0, 0)


def test_what_a_lost_loop_held_comes_back_with_the_next_connection() -> None:
    with memory_server() as server:
        declare(server, "orders")

        async def forget_to_close() -> None:
            broker = MemoryBroker(Settings(url=server.url))
            inbox = await Inbox.of(broker, "orders")
            await send(broker, to("orders", b"1"))
            await inbox.next()

        asyncio.run(forget_to_close())
        assert server.queue("orders").unacked == 1

        async def come_next() -> bytes:
            broker = MemoryBroker(Settings(url=server.url))
            await send(broker, to("orders", b"2"))
            inbox = await Inbox.of(broker, "orders")
            first = await inbox.next()
            await broker.close()
            return first.message.body

        assert asyncio.run(come_next()) == b"1"


def test_a_broker_may_outlive_its_loop() -> None:
    with memory_server() as server:
        declare(server, "orders", {"x-message-ttl": 20})
        broker = MemoryBroker(Settings(url=server.url))

        asyncio.run(send(broker, to("orders")))
        assert server.queue("orders").depth == 1

        async def again() -> None:
            await broker.open()
            await eventually(lambda: server.queue("orders").depth == 0)

        asyncio.run(again())


def test_timers_go_on_with_the_connections_that_are_left() -> None:
    with memory_server() as server:
        declare(server, "orders", {"x-message-ttl": 50})

        async def produce() -> None:
            broker = MemoryBroker(Settings(url=server.url))
            await send(broker, to("orders"))
            await broker.close()

        async def main() -> None:
            watcher = MemoryBroker(Settings(url=server.url))
            await watcher.open()
            await asyncio.to_thread(asyncio.run, produce())
            await eventually(lambda: server.queue("orders").depth == 0)
            await watcher.close()

        asyncio.run(main())


def test_without_any_loop_nothing_expires_until_somebody_connects() -> None:
    with memory_server() as server:
        declare(server, "orders", {"x-message-ttl": 20})
        assert isinstance(server.clock, SystemClock)

        server.publish(to("orders"))
        assert server.queue("orders").depth == 1

        async def connect() -> None:
            await MemoryBroker(Settings(url=server.url)).open()
            await eventually(lambda: server.queue("orders").depth == 0)

        asyncio.run(connect())


# --- expiry and dead letters -------------------------------------------------------------------------


async def test_the_shorter_ttl_counts(
    server: MemoryServer, broker: MemoryBroker, clock: VirtualClock
) -> None:
    declare(server, "orders", {"x-message-ttl": 5000})
    for body, expiration in ((b"1", 1.0), (b"5", 60.0), (b"5", None)):
        await send(broker, to("orders", body, Properties(expiration=expiration)))

    await clock.advance(1)
    assert server.queue("orders").depth == 2
    await clock.advance(3.99)
    assert server.queue("orders").depth == 2
    await clock.advance(0.01)
    assert server.queue("orders").depth == 0


async def test_a_dead_letter_without_a_queue_is_dropped_or_waits_as_its_strategy_says(
    server: MemoryServer, broker: MemoryBroker, clock: VirtualClock
) -> None:
    careless: Headers = {
        "x-message-ttl": 1000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "home",
    }
    at_least_once = {"x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once"}
    declare(server, "careless", careless)
    declare(server, "careful", {**careless, **at_least_once})
    await send(broker, to("careless"), to("careful", b"kept"))

    await clock.advance(60)
    assert server.queue("careless").depth == 0
    assert server.queue("careful").depth == 1

    declare(server, "home")
    await clock.advance(180)
    assert [message.body for message in server.queue("home").messages] == [b"kept"]
    assert server.queue("careful").depth == 0


async def test_a_full_dead_letter_queue_refuses_dead_letters_too(
    server: MemoryServer, broker: MemoryBroker, clock: VirtualClock
) -> None:
    declare(server, "home", {"x-max-length": 1, "x-overflow": "reject-publish"})
    server.declare(delay_hop(1) + way_home("home"))
    for body in (b"1", b"2"):
        await send(broker, Publication(body=body, exchange=delay_name(1), routing_key="home"))

    await clock.advance(1)

    assert [message.body for message in server.queue("home").messages] == [b"1"]
    assert server.queue(delay_name(1)).depth == 1


async def test_a_dead_letter_that_goes_in_circles_is_dropped(
    server: MemoryServer, broker: MemoryBroker, clock: VirtualClock
) -> None:
    for here, there in (("ping", "pong"), ("pong", "ping")):
        declare(
            server,
            here,
            {"x-message-ttl": 1000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": there},
        )
    await send(broker, to("ping"))

    await clock.advance(1)
    [message] = server.queue("pong").messages
    assert message.headers["x-first-death-queue"] == "ping"
    await clock.advance(1)

    assert (server.queue("ping").depth, server.queue("pong").depth) == (0, 0)


async def test_the_last_death_stands_first(
    server: MemoryServer, broker: MemoryBroker, clock: VirtualClock
) -> None:
    for here, there in (("one", "two"), ("two", "three")):
        declare(
            server,
            here,
            {"x-message-ttl": 1000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": there},
        )
    declare(server, "three")
    forged = {"x-death": ["nonsense", {"queue": "one", "reason": "expired", "count": "many"}]}
    await send(broker, to("one", properties=Properties(headers=forged)))

    await clock.advance(2)

    [message] = server.queue("three").messages
    deaths = message.headers["x-death"]
    assert isinstance(deaths, list)
    assert [(death["queue"], death["count"]) for death in deaths] == [("two", 1), ("one", 1)]
    assert message.headers["x-first-death-queue"] == "one"


async def test_a_refused_message_can_be_a_dead_letter(server: MemoryServer, broker: MemoryBroker) -> None:
    declare(server, "dead")
    declare(
        server,
        "full",
        {
            "x-max-length": 0,
            "x-overflow": "reject-publish-dlx",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "dead",
        },
    )

    with pytest.raises(PublishNacked, match="full"):
        await send(broker, to("full"))

    assert [message.headers["x-first-death-reason"] for message in server.queue("dead").messages] == [
        "maxlen"
    ]


# --- declaring ---------------------------------------------------------------------------------------


def test_the_default_exchange_takes_no_bindings(server: MemoryServer) -> None:
    declare(server, "orders")

    with pytest.raises(AccessRefused):
        server.declare(Topology(bindings=(QueueBinding(queue="orders", exchange=""),)))


def test_an_unknown_type_of_exchange_is_refused(server: MemoryServer) -> None:
    with pytest.raises(TopologyMismatch, match="x-delayed-message"):
        server.declare(Topology(exchanges=(Exchange(name="later", type="x-delayed-message"),)))


def test_arguments_of_another_type_of_queue_are_refused(server: MemoryServer) -> None:
    with pytest.raises(TopologyMismatch, match="x-delivery-limit"):
        declare(server, "orders", {"x-queue-type": "classic", "x-delivery-limit": 5})
    with pytest.raises(TopologyMismatch, match="max_value_exceeded"):
        declare(server, "orders", {"x-max-priority": 256})


async def test_a_deleted_exchange_routes_nothing(server: MemoryServer, broker: MemoryBroker) -> None:
    declare(server, "orders")
    server.declare(
        Topology(
            exchanges=(Exchange(name="events"),), bindings=(QueueBinding(queue="orders", exchange="events"),)
        )
    )
    server.delete_exchange("events")
    server.declare(Topology(exchanges=(Exchange(name="events", type="fanout"),)))

    await send(broker, Publication(body=b"", exchange="events", routing_key="", mandatory=False))

    assert server.queue("orders").depth == 0
