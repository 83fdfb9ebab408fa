"""The gateway's tests: everything runs for real, on a broker in memory, with stand-ins for the shop."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from autosell_rmq import BrokerUnavailable
from autosell_rmq_fastapi import Producer
from gateway.app import app
from gateway.shop import Shop, get_shop
from gateway.standins import get_catalogue

LAMPS = {"lines": [{"item": "lamp", "quantity": 2}]}
RUG = {"lines": [{"item": "rug"}]}
UNICORN = {"lines": [{"item": "unicorn"}]}


@pytest.fixture
def client() -> Iterator[TestClient]:
    """The running gateway, asked by one customer."""
    with TestClient(app, headers={"X-Customer": "ann@example.com"}) as client:
        yield client
    app.dependency_overrides.clear()


def eventually[T](look: Callable[[], T], seen: Callable[[T], bool]) -> T:
    """What is found once it is there."""
    give_up = time.monotonic() + 10
    while not seen(found := look()):
        assert time.monotonic() < give_up, found
        time.sleep(0.01)
    return found


def post(client: TestClient, path: str, body: object, key: str = "", **headers: str) -> tuple[int, Any]:
    """What is answered; without a key it is a new request."""
    headers |= {"Idempotency-Key": key or str(uuid4())}
    response = client.post(path, json=body, headers=headers)
    return response.status_code, response.json()


def test_an_order(client: TestClient) -> None:
    status, order = post(client, "/orders", LAMPS)

    assert status == 201
    assert order == {"number": order["number"], "customer": "ann@example.com", "total": "49.00"}


def test_an_order_sent_twice_is_one_order(client: TestClient) -> None:
    key = str(uuid4())
    first = post(client, "/orders", LAMPS, key)

    assert post(client, "/orders", LAMPS, key) == first
    assert post(client, "/orders", LAMPS)[1]["number"] == first[1]["number"] + 1


def test_a_key_belongs_to_its_customer(client: TestClient) -> None:
    key = str(uuid4())
    _, anns = post(client, "/orders", LAMPS, key)
    _, bobs = post(client, "/orders", LAMPS, key, **{"X-Customer": "bob@example.com"})

    assert (anns["customer"], bobs["customer"]) == ("ann@example.com", "bob@example.com")


def test_what_cannot_be_ordered(client: TestClient) -> None:
    assert post(client, "/orders", UNICORN) == (422, {"detail": "no such item: unicorn"})
    assert post(client, "/orders", {"lines": []})[0] == 422
    assert client.post("/orders", json=LAMPS).status_code == 400  # no Idempotency-Key


def test_a_shop_that_fails(client: TestClient) -> None:
    def broken() -> None:
        raise RuntimeError("the catalogue is closed")

    app.dependency_overrides[get_catalogue] = broken  # handlers follow it, as routes do

    assert post(client, "/orders", LAMPS) == (502, {"detail": "the shop could not do it"})


def test_a_shop_that_is_too_slow(client: TestClient) -> None:
    asked_again = threading.Event()

    def impatient(producer: Producer) -> Shop:
        return Shop(producer, patience=0.01)

    def slow() -> dict[str, str]:
        asked_again.wait(10)
        return {}

    app.dependency_overrides |= {get_shop: impatient, get_catalogue: slow}
    status, answer = post(client, "/orders", LAMPS)
    asked_again.set()

    assert status == 504
    assert "repeat the request under the same Idempotency-Key" in answer["detail"]


def test_a_shop_that_is_not_there(client: TestClient) -> None:
    def away() -> Shop:
        raise BrokerUnavailable("no connection to rabbit.internal")

    app.dependency_overrides[get_shop] = away

    assert post(client, "/orders", LAMPS) == (503, {"detail": "the shop cannot be reached"})


def test_a_batch(client: TestClient) -> None:
    key = str(uuid4())
    accepted = post(client, "/batches", {"baskets": [LAMPS, RUG]}, key)
    url = f"/batches/{key}"

    assert accepted == (202, {"id": key, "status": "pending", "status_url": url})
    done = eventually(lambda: client.get(url).json(), lambda found: found["status"] == "done")
    lamps, rug = done["reply"]["data"]
    assert (lamps["total"], rug["total"]) == ("49.00", "89.90")
    assert post(client, "/batches", {"baskets": [LAMPS, RUG]}, key) == accepted
    assert post(client, "/batches", {"baskets": [RUG]}, key)[0] == 422
    assert client.get(url, headers={"X-Customer": "bob@example.com"}).status_code == 404
    assert post(client, "/orders", LAMPS)[1]["number"] == rug["number"] + 1  # nothing was ordered twice


def test_a_batch_of_what_is_not_sold(client: TestClient) -> None:
    key = str(uuid4())
    _, before = post(client, "/orders", LAMPS)
    post(client, "/batches", {"baskets": [LAMPS, UNICORN]}, key)

    look = f"/batches/{key}"
    failed = eventually(lambda: client.get(look).json(), lambda found: found["status"] == "failed")
    assert (failed["error"], failed["error_code"]) == ("Reject: no such item: unicorn", "rejected")
    assert post(client, "/orders", LAMPS)[1]["number"] == before["number"] + 1  # nothing of it was ordered


def test_events_newest_first(client: TestClient) -> None:
    orders = [post(client, "/orders", basket)[1] for basket in (LAMPS, RUG)]

    def mine() -> list[Any]:
        return [event for event in client.get("/events").json() if event in orders]

    assert eventually(mine, lambda found: len(found) == 2) == orders[::-1]


def test_health_and_docs(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "alive"}
    assert client.get("/health/ready").json() == {"status": "ready", "problems": []}
    assert "Order one basket after the other." in client.get("/rmq/docs").text
    assert "/orders" in client.get("/openapi.json").json()["paths"]
