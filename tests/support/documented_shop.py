"""An app with one of everything that its document and its page have to show."""

import datetime as dt
from decimal import Decimal
from enum import StrEnum
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field, computed_field

from autosell_rmq import Binding, Message, RabbitMQ

SECRET = "s3cret"  # of the login, which no document may show
URL = f"amqp://shopkeeper:{SECRET}@rabbit.internal:5673/shop"


class Currency(StrEnum):
    EUR = "EUR"
    USD = "USD"


class Money(BaseModel):
    """An amount with its currency."""

    amount: Decimal = Field(gt=0)
    currency: Currency = Currency.EUR


class Address(BaseModel):
    street: str = Field(min_length=1, max_length=200)
    city: str
    postal_code: str = Field(pattern=r"^[0-9]{5}$")
    country: str = Field("DE", min_length=2, max_length=2, description="ISO 3166-1 alpha-2.")


class Line(BaseModel):
    sku: str = Field(description="The article's number.", examples=["TEA-100"])
    quantity: int = Field(1, ge=1, le=999)
    price: Money


class Card(BaseModel):
    kind: Literal["card"]
    token: str


class Invoice(BaseModel):
    kind: Literal["invoice"]
    days: int = Field(14, ge=0)


class Order(BaseModel):
    """What a customer has asked for."""

    order_id: UUID
    customer: str = Field(description="The customer's e-mail address.", examples=["ada@example.com"])
    lines: list[Line] = Field(min_length=1, max_length=50)
    ship_to: Address
    payment: Card | Invoice = Field(discriminator="kind")
    note: str | None = Field(None, max_length=500)
    placed_at: dt.datetime
    size: tuple[int, int, str] = (10, 20, "cm")
    billing: Address = Field(description="Where the invoice goes.")


class OrderCreated(BaseModel):
    number: int = Field(ge=1)
    total: Money

    @computed_field  # type: ignore[prop-decorator]
    @property
    def label(self) -> str:
        return f"order {self.number}"


class Stock(BaseModel):
    sku: str
    left: int


def documented_shop(url: str = URL) -> RabbitMQ:
    """A new app."""
    rmq = RabbitMQ(url)

    @rmq.handler("orders", max_retries=5, prefetch=50, timeout=90)
    async def create_order(order: Order, message: Message) -> OrderCreated:
        """Create an order and reserve its stock.

        Sent again with the same `correlation_id`, it gets the same reply.

        The price is looked up in ``prices``.
        """
        return OrderCreated(number=7, total=order.lines[0].price)

    @rmq.handler("prices", on_conflict="reject", idempotency_key=None)
    def look_up(items: list[str]) -> dict[str, Money]:
        """Look prices up."""
        return {item: Money(amount=Decimal(1)) for item in items}

    events = [Binding("shop.events", "order.*"), Binding("shop.news", "", "fanout")]

    @rmq.handler("audit log/2", bind=events, max_retries=0, single_active_consumer=True)
    async def audit(event: dict[str, object]) -> None:
        """Write every event of the shop to the audit log."""

    @rmq.handler("legacy", dlq="orders_dlq", max_priority=5)
    async def legacy(data, message: Message):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return data

    rmq.publishes("shop.events", "order.created", OrderCreated, description="Its stock is reserved.")
    rmq.publishes("shop.events", "stock.low", Stock)
    return rmq
