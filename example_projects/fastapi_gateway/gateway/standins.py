"""Stand-ins for the shop's two services: with them the gateway runs alone, on ``memory://``."""

from decimal import Decimal
from itertools import count
from typing import Annotated

from fastapi import Depends

from autosell_rmq import Message, Router
from gateway.messages import Line, NewOrder, Order, Quote
from gateway.settings import EVENTS, ORDERS, PRICES

handlers = Router()
numbers = count(1)


def get_catalogue() -> dict[str, Decimal]:
    """What is sold; tests override it."""
    return {"lamp": Decimal("24.50"), "sofa": Decimal("445.00"), "rug": Decimal("89.90")}


@handlers.handler(PRICES, idempotency_key=None, max_retries=0)
async def quote(lines: list[Line], catalogue: Annotated[dict[str, Decimal], Depends(get_catalogue)]) -> Quote:
    """Stands for the shop's pricing service."""
    return Quote(prices={line.item: catalogue[line.item] for line in lines if line.item in catalogue})


@handlers.handler(ORDERS, max_retries=0)
async def create_order(new: NewOrder, message: Message) -> Order:
    """Stands for the shop's handler of orders, which would write rows."""
    total = sum((new.prices[line.item] * line.quantity for line in new.lines), Decimal(0))
    order = Order(number=next(numbers), customer=new.customer, total=total)
    await message.producer.publish_to_exchange(EVENTS, "order.created", order)
    return order


handlers.publishes(EVENTS, "order.created", Order, description="An order was written.")
