"""Many orders at once: accepted with 202, handled by this service's own consumer, and asked about later."""

from typing import Annotated

from fastapi import APIRouter, Depends

from autosell_rmq import Message, RabbitMQ, Reject, Router
from autosell_rmq_fastapi import Accept, Accepted, AcceptedRequests
from gateway.customers import Customer, customer
from gateway.messages import Baskets, Batch, Order
from gateway.settings import BATCHES
from gateway.shop import TheShop, UnknownItemError

handlers = Router()


@handlers.handler(BATCHES, max_retries=5)
async def order_batch(batch: Batch, message: Message, shop: TheShop) -> list[Order]:
    """Order one basket after the other.

    Where it is cut short it begins anew, and gets the answers of the orders that are written already: each
    has a key that follows from the batch's.
    """
    try:
        prices = await shop.prices(line for basket in batch.baskets for line in basket.lines)
        return [
            await shop.order(batch.customer, basket, prices=prices, key=f"{message.idempotency_key}:{number}")
            for number, basket in enumerate(batch.baskets)
        ]
    except UnknownItemError as error:
        raise Reject(str(error)) from None  # no retry would help


def routes(rmq: RabbitMQ) -> APIRouter:
    """``POST /batches``, and the status of each."""
    router = APIRouter(prefix="/batches", tags=["batches"])
    requests = AcceptedRequests(rmq, BATCHES, scope=customer)
    router.include_router(requests.router)

    @router.post("", status_code=202)
    async def create_batch(
        baskets: Baskets, customer: Customer, accept: Annotated[Accept, Depends(requests.accept)]
    ) -> Accepted:
        """Accept it: from here on it is not lost. ``status_url`` tells what becomes of it."""
        return await accept(Batch(customer=customer, baskets=baskets.baskets))

    return router
