"""The product's side of the demo: a shop that takes orders. This is all the code that a service needs."""

import asyncio

from pydantic import BaseModel
from screen import handler_says

from autosell_rmq import Message, Router


class Order(BaseModel):
    """What a customer sends."""

    item: str
    quantity: int = 1


class Receipt(BaseModel):
    """What the shop answers."""

    number: int
    item: str
    total: float


PRICES = {"lamp": 24.5, "sofa": 890.0}


def shop(queue: str) -> Router:
    """The shop's handlers, for the queue of this run."""
    router = Router()
    receipts = 0

    @router.handler(queue, max_retries=2, retry_delay=1, max_retry_delay=2)
    async def take_order(order: Order, message: Message) -> Receipt:
        nonlocal receipts
        if order.item not in PRICES:
            handler_says(f"attempt {message.attempt}: {order.item}?")
            raise LookupError(f"no such item: {order.item}")
        if order.item == "sofa":
            handler_says("a sofa: packing takes a while …")
            await asyncio.sleep(2)
        receipts += 1
        handler_says(f"order for {order.quantity} × {order.item}, receipt {receipts}")
        return Receipt(number=receipts, item=order.item, total=PRICES[order.item] * order.quantity)

    return router
