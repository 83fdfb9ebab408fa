"""What comes by HTTP, and what travels to the shop and back."""

from decimal import Decimal

from pydantic import BaseModel, Field


class Line(BaseModel):
    """So many of a thing."""

    item: str = Field(min_length=1, max_length=100, examples=["lamp"])
    quantity: int = Field(default=1, ge=1, le=1000)


class Basket(BaseModel):
    """What a customer wants."""

    lines: list[Line] = Field(min_length=1, max_length=100)


class Baskets(BaseModel):
    """Several baskets at once: each becomes an order of its own."""

    baskets: list[Basket] = Field(min_length=1, max_length=100)


class Batch(Baskets):
    """Baskets and whose they are: the message to our own queue."""

    customer: str


class Quote(BaseModel):
    """What the shop's pricing service answers: the price of one of each thing that is sold."""

    prices: dict[str, Decimal]


class NewOrder(Basket):
    """The request to the shop's queue of orders."""

    customer: str
    prices: dict[str, Decimal]


class Order(BaseModel):
    """The shop's reply to `NewOrder`, and its event ``order.created``."""

    number: int
    customer: str
    total: Decimal
