"""What travels: checked when it arrives, so that a handler gets what its annotation says."""

from decimal import Decimal

from pydantic import BaseModel, Field


class Line(BaseModel):
    """So many of a thing."""

    item: str = Field(min_length=1, max_length=100)
    quantity: int = Field(default=1, ge=1, le=1000)


class Basket(BaseModel):
    """What a customer wants."""

    customer: str = Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=200)
    lines: list[Line] = Field(min_length=1, max_length=100)


class Quote(BaseModel):
    """What the pricing service answers: the price of one of each thing that is sold."""

    prices: dict[str, Decimal]


class NewOrder(Basket):
    """A basket with its prices: the request to the queue of orders."""

    prices: dict[str, Decimal]


class OrderCreated(BaseModel):
    """The reply to `NewOrder`, and the event ``order.created``."""

    number: int
    customer: str
    total: Decimal
