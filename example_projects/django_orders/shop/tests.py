"""The shop's tests: its handlers run for real, on a broker in memory, in the transaction of each test."""

import json
from decimal import Decimal
from typing import Any

from django.test import TestCase

from autosell_rmq_django.test import RabbitMQTestMixin
from shop.models import Customer, Mail, Order
from shop.names import EVENTS, ORDERS, PRICES

NEW_ORDER = {
    "customer": "ann@example.com",
    "lines": [{"item": "lamp", "quantity": 2}],
    "prices": {"lamp": "24.50"},
}


class HandlerTests(RabbitMQTestMixin, TestCase):
    """One message at a time, by `deliver`."""

    def test_an_order_is_written_once(self) -> None:
        first = self.rmq.deliver(ORDERS, NEW_ORDER, correlation_id="basket-1")
        second = self.rmq.deliver(ORDERS, NEW_ORDER, correlation_id="basket-1")

        order = Order.objects.get()
        assert order.total == Decimal("49.00")
        assert [str(line) for line in order.lines.all()] == ["2 × lamp"]
        assert first["data"] == {"number": order.pk, "customer": "ann@example.com", "total": "49.00"}
        assert second == first

    def test_its_event_carries_the_same_id(self) -> None:
        reply = self.rmq.deliver(ORDERS, NEW_ORDER, correlation_id="basket-1")

        [event] = self.rmq.sent
        assert (event.exchange, event.routing_key) == (EVENTS, "order.created")
        assert event.data == reply["data"]
        assert event.correlation_id == "basket-1"

    def test_an_order_without_a_price_is_a_dead_letter(self) -> None:
        reply = self.rmq.deliver(ORDERS, NEW_ORDER | {"prices": {}})

        assert reply["error_code"] == "rejected"
        assert [letter.reason_code for letter in self.rmq.dead_letters(ORDERS)] == ["rejected"]
        assert not Customer.objects.exists()
        assert self.rmq.sent == []

    def test_an_order_of_nothing_never_reaches_the_handler(self) -> None:
        assert self.rmq.deliver(ORDERS, NEW_ORDER | {"lines": []})["error_code"] == "invalid_message"

    def test_a_mail_follows_the_event(self) -> None:
        self.rmq.deliver(ORDERS, NEW_ORDER)
        assert not Mail.objects.exists()  # the event is sent, and waits for the test

        assert self.rmq.run() == 1
        assert Mail.objects.get().text == "Thank you for your order over 49.00."


class ViewTests(RabbitMQTestMixin, TestCase):
    """Views that wait for replies: the project's handlers answer them, or the test does."""

    def order(self, item: str = "lamp", key: str = "click-1") -> tuple[int, dict[str, Any]]:
        response = self.client.post(
            "/api/orders",
            json.dumps({"customer": "ann@example.com", "lines": [{"item": item, "quantity": 2}]}),
            content_type="application/json",
            headers={"Idempotency-Key": key},
        )
        return response.status_code, response.json()

    def test_an_order(self) -> None:
        status, answer = self.order()

        assert (status, answer["total"]) == (201, "49.00")
        assert [(m.queue or m.exchange, m.is_request) for m in self.rmq.sent] == [
            (PRICES, True),
            (ORDERS, True),
            (EVENTS, False),
        ]

    def test_a_double_click_is_one_order(self) -> None:
        assert self.order() == self.order()
        assert Order.objects.count() == 1
        assert self.order(key="click-2")[1]["number"] != self.order()[1]["number"]

    def test_an_unknown_item(self) -> None:
        status, answer = self.order("unicorn")

        assert (status, answer) == (422, {"error": "no such item: unicorn"})

    def test_a_pricing_service_that_fails(self) -> None:
        def fail(lines: object) -> None:
            raise RuntimeError("the catalogue is closed")

        self.rmq.answer(PRICES, fail)

        assert self.order() == (503, {"error": "not now: RuntimeError: the catalogue is closed"})
        assert not Order.objects.exists()

    def test_another_price_of_the_pricing_service(self) -> None:
        self.rmq.answer(PRICES, lambda lines: {"prices": {line["item"]: "1.10" for line in lines}})

        assert self.order()[1]["total"] == "2.20"

    def test_a_basket_that_is_none(self) -> None:
        assert self.client.post("/api/orders", "{}", content_type="application/json").status_code == 400
        assert self.rmq.sent == []

    def test_an_async_view(self) -> None:
        assert self.client.get("/api/prices/rug").json() == {"item": "rug", "price": "89.90"}
        assert self.client.get("/api/prices/unicorn").status_code == 404

    def test_the_page(self) -> None:
        self.order()
        self.rmq.run()
        self.assertContains(self.client.get("/"), "2 × lamp")
