"""RabbitMQTester: an app on a broker in memory, asked by TestClient and by httpx."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from autosell_rmq import Binding, ClosedError, ConfigError, PublishUnroutable, RabbitMQ, ReplyTimeout
from autosell_rmq.testing import RabbitMQTester
from autosell_rmq_fastapi import Producer, rmq_lifespan
from tests.fastapi.shop_fixtures import Shop, client_of, shop

__all__ = ["shop"]

LAMP = {"item": "lamp"}


@pytest.fixture
def broker(shop: Shop) -> Iterator[RabbitMQTester]:
    with RabbitMQTester(shop.rmq) as broker:
        yield broker


@pytest.fixture
def client(shop: Shop, broker: RabbitMQTester) -> Iterator[TestClient]:
    with TestClient(shop.app) as client:
        yield client


# --- with TestClient -----------------------------------------------------------------------------------


def test_deliver_returns_the_reply(shop: Shop, client: TestClient, broker: RabbitMQTester) -> None:
    reply = broker.deliver("orders", LAMP, correlation_id="one")

    assert reply == {"success": True, "data": 3, "correlation_id": "one"}
    assert shop.handled == ["lamp"]
    [event] = broker.sent
    assert (event.exchange, event.routing_key, event.data) == ("events", "order.created", LAMP)


def test_a_duplicate_is_one(shop: Shop, client: TestClient, broker: RabbitMQTester) -> None:
    first, second = (broker.deliver("orders", LAMP, correlation_id="one") for _ in range(2))

    assert first == second
    assert shop.handled == ["lamp"]


def test_retries_take_no_time(shop: Shop, client: TestClient, broker: RabbitMQTester) -> None:
    shop.broken.append("lamp")

    reply = broker.deliver("orders", LAMP)

    assert (reply["error"], reply["error_code"]) == ("OSError: no lamp today", "max_retries_exceeded")
    assert [(f.queue, f.attempt, type(f.error)) for f in broker.failures] == [
        ("orders", attempt, OSError) for attempt in (1, 2, 3, 4)
    ]
    [letter] = broker.dead_letters("orders")
    assert (letter.data, letter.attempts, letter.error_type) == (LAMP, 4, "OSError")


def test_a_rejected_message(client: TestClient, broker: RabbitMQTester) -> None:
    assert broker.deliver("orders", {"item": "unicorn"})["error_code"] == "rejected"
    assert "no such item: unicorn" in broker.dead_letters("orders")[0].reason
    assert broker.dead_letters("mails") == broker.dead_letters("unknown") == []


@pytest.mark.parametrize("path", ["/orders", "/sync"])
def test_a_route_asks_a_handler_of_the_app(
    shop: Shop, client: TestClient, broker: RabbitMQTester, path: str
) -> None:
    assert client.post(path, json=LAMP).json()["data"] == 3
    shop.broken.append("lamp")
    assert client.post(path, json=LAMP).json()["error_code"] == "max_retries_exceeded"

    assert [(message.queue, message.is_request) for message in broker.sent if message.queue] == [
        ("orders", True),
        ("orders", True),
    ]


def test_what_is_sent_waits_for_the_test(shop: Shop, client: TestClient, broker: RabbitMQTester) -> None:
    broker.answer("prices", {"eur": 5})
    correlation_id = client.post("/later", json=LAMP).json()
    [sent] = broker.sent
    assert (sent.queue, sent.data, sent.correlation_id) == ("orders", {**LAMP, "key": ""}, correlation_id)
    assert (sent.headers["tenant"], sent.is_request) == ("x", False)
    assert sent.due is not None
    assert shop.handled == []

    assert broker.run() == 2

    assert shop.handled == ["lamp", ("mail", "lamp", {"eur": 5})]
    assert broker.run() == 0


def test_another_service_is_stood_in_for(client: TestClient, broker: RabbitMQTester) -> None:
    def price(item: str) -> float:
        return {"lamp": 24.5}[item]

    broker.answer("prices", price)

    assert client.get("/price", params=LAMP).json()["data"] == 24.5
    assert client.get("/price", params={"item": "sofa"}).json()["error"] == "KeyError: 'sofa'"


def test_a_request_that_nobody_answers_is_told(client: TestClient) -> None:
    with pytest.raises(PublishUnroutable, match=r"rmq.answer\('prices', …\)"):
        client.get("/price", params=LAMP)


def test_events(shop: Shop, client: TestClient, broker: RabbitMQTester) -> None:
    broker.answer("prices", 5)

    broker.deliver_event("events", "order.changed", LAMP)

    assert shop.handled == [("mail", "lamp", 5)]
    with pytest.raises(PublishUnroutable):
        broker.deliver_event("events", "invoice.created", LAMP)


def test_an_accepted_request(shop: Shop, client: TestClient, broker: RabbitMQTester) -> None:
    answer = client.post("/accepted", json=LAMP, headers={"Idempotency-Key": "k"})
    url = answer.headers["Location"]
    assert (answer.status_code, client.get(url).json()["status"]) == (202, "pending")

    broker.run()

    assert client.get(url).json()["reply"]["data"] == 3
    client.post("/accepted", json=LAMP, headers={"Idempotency-Key": "k"})
    assert broker.run() == 0
    assert shop.handled == ["lamp"]


def test_the_app_is_ready(client: TestClient) -> None:
    assert client.get("/health/ready").json() == {"status": "ready", "problems": []}


def test_the_app_may_start_twice(shop: Shop, broker: RabbitMQTester) -> None:
    for _ in range(2):
        with TestClient(shop.app):
            assert broker.deliver("orders", LAMP, correlation_id="one")["success"]
        assert shop.rmq.problems == ("not connected to the server in memory",)
    assert shop.handled == ["lamp"]


# --- in async tests ------------------------------------------------------------------------------------


async def test_with_httpx(shop: Shop, broker: RabbitMQTester) -> None:
    broker.answer("prices", 5)
    async with client_of(shop.app) as client:
        assert (await client.post("/orders", json=LAMP)).json()["data"] == 3
        assert (await broker.adeliver("orders", LAMP))["data"] == 3
        assert await broker.arun() == 2
        await broker.adeliver_event("events", "order.changed", LAMP)
        shop.broken.append("lamp")
        assert (await client.post("/sync", json=LAMP)).json()["success"] is False

    assert len(broker.failures) == 4
    assert shop.handled == ["lamp", "lamp", *[("mail", "lamp", 5)] * 3]


async def test_what_would_block_the_loop_is_refused(shop: Shop, broker: RabbitMQTester) -> None:
    async with client_of(shop.app):
        with pytest.raises(ClosedError, match=r"await broker\.adeliver"):
            broker.deliver("orders", LAMP)
        with pytest.raises(ClosedError, match="its twin"):
            broker.run()


async def test_without_a_web_framework(shop: Shop) -> None:
    rmq = RabbitMQ("memory://elsewhere")
    rmq.handler("double")(lambda number: number * 2)
    with RabbitMQTester(rmq) as broker:
        async with rmq:
            await rmq.start_consuming()
            assert (await broker.adeliver("double", 2))["data"] == 4


# --- its begin and its end -------------------------------------------------------------------------------


def test_the_app_has_to_run(shop: Shop, broker: RabbitMQTester) -> None:
    with pytest.raises(ConfigError, match="'orders': there are none now: start the app first"):
        broker.deliver("orders", LAMP)
    with TestClient(shop.app), pytest.raises(ConfigError, match="'order': there are orders, mails"):
        broker.deliver("order", LAMP)


def test_an_app_that_only_sends() -> None:
    rmq = RabbitMQ("amqp://guest:secret@127.0.0.1:1/")
    rmq.handler("orders")(lambda order: order)
    app = FastAPI(lifespan=rmq_lifespan(rmq, consume=False))

    @app.post("/")
    async def send(producer: Producer) -> str:
        return await producer.send_fire_and_forget("orders", 1)

    with RabbitMQTester(rmq) as broker, TestClient(app) as client:
        client.post("/")
        assert [message.data for message in broker.sent] == [1]
        assert broker.run() == 0


def test_two_apps_on_one_broker(shop: Shop) -> None:
    """The services of a flow, in one test."""
    gateway = RabbitMQ("amqp://guest:secret@127.0.0.1:1/")
    app = FastAPI(lifespan=rmq_lifespan(gateway))

    @app.post("/{key}")
    async def ask(key: str, producer: Producer) -> object:
        return (await producer.send_message("orders", {"item": "lamp", "key": key}))["data"]

    @app.put("/{key}")
    async def accept(key: str) -> str:
        return await gateway.accept("orders", LAMP, correlation_id=key)

    @app.get("/{key}")
    async def state(key: str) -> str:
        record = await gateway.lookup("orders", key)
        return record.state if record is not None else ""

    with (
        RabbitMQTester(shop.rmq, gateway) as broker,
        TestClient(shop.app),
        TestClient(app) as client,
    ):
        assert client.post("/a").json() == 3
        assert [message.queue or message.exchange for message in broker.sent] == ["orders", "events"]
        assert client.put("/b").json() == "b"
        assert client.get("/b").json() == "accepted"
        broker.answer("prices", 5)
        broker.run()
        assert client.get("/b").json() == "done"


def test_each_tester_is_a_broker_of_its_own(shop: Shop) -> None:
    other = RabbitMQ("memory://other")
    other.handler("orders")(lambda order: "the other")
    app = FastAPI(lifespan=rmq_lifespan(other))
    with RabbitMQTester(shop.rmq) as one, RabbitMQTester(other) as two:
        with TestClient(shop.app), TestClient(app):
            assert one.deliver("orders", LAMP)["data"] == 3
            assert two.deliver("orders", LAMP)["data"] == "the other"
        assert (len(one.sent), two.sent) == (1, [])


def test_nothing_is_left_of_it(shop: Shop) -> None:
    store, producer, threads = shop.rmq.store, shop.rmq.producer, threading.active_count()
    for _ in range(2):
        with RabbitMQTester(shop.rmq) as broker:
            assert (broker.sent, broker.failures) == ([], [])
            assert shop.rmq.store is not store
            assert shop.rmq.producer is producer
            with TestClient(shop.app):
                assert broker.deliver("orders", LAMP, correlation_id="one")["success"]
    assert shop.handled == ["lamp", "lamp"]
    assert shop.rmq.store is store
    assert threading.active_count() <= threads
    with pytest.raises(ConnectionError), TestClient(shop.app):
        pass


def test_a_test_that_fails_leaves_nothing_either(shop: Shop) -> None:
    store = shop.rmq.store
    with pytest.raises(ZeroDivisionError), RabbitMQTester(shop.rmq), TestClient(shop.app):
        _ = 1 / 0
    assert shop.rmq.store is store


def test_outside_of_its_with_it_does_nothing(shop: Shop, broker: RabbitMQTester) -> None:
    with pytest.raises(ClosedError, match="not open"):
        RabbitMQTester(shop.rmq).deliver("orders", LAMP)
    with pytest.raises(ConfigError, match="wants the app's RabbitMQ object"):
        RabbitMQTester()


async def test_an_app_that_is_connected_is_refused(shop: Shop) -> None:
    rmq = RabbitMQ("memory://connected")
    store = rmq.store
    async with rmq:
        with pytest.raises(ClosedError, match="begins before the app starts"), RabbitMQTester(shop.rmq, rmq):
            pass
    assert rmq.store is store
    with RabbitMQTester(shop.rmq):  # was given back
        pass


async def test_a_producer_that_is_connected_is_refused() -> None:
    rmq = RabbitMQ("memory://connected")
    await rmq.producer.connect()
    with pytest.raises(ClosedError, match="close it before"), RabbitMQTester(rmq):
        pass
    await rmq.producer.close()


async def test_an_app_that_stays_connected_is_told_and_stays_in_memory() -> None:
    rmq = RabbitMQ("amqp://guest:secret@127.0.0.1:1/")
    tester = RabbitMQTester(rmq)
    tester.__enter__()
    await rmq.connect()
    with pytest.raises(ClosedError, match="ends after it has stopped"):
        tester.__exit__(None, None, None)
    await rmq.close()
    assert rmq.problems == ("not connected to the server in memory",)


def test_a_handler_that_takes_too_long_ends_the_wait() -> None:
    rmq = RabbitMQ("memory://slow", drain_timeout=0.05)

    @rmq.handler("stuck", bind=Binding("events", "stuck"))
    async def stuck(data: object) -> None:
        await asyncio.Event().wait()

    app = FastAPI(lifespan=rmq_lifespan(rmq))
    with RabbitMQTester(rmq) as broker, TestClient(app):
        with pytest.raises(ReplyTimeout):
            broker.deliver("stuck", 1, timeout=0.05)
        with pytest.raises(TimeoutError):
            broker.deliver_event("events", "stuck", 1, timeout=0.05)
