"""One order: the customer waits until it is written."""

from typing import Annotated

from fastapi import APIRouter, Depends

from autosell_rmq_fastapi import IdempotencyKey, idempotency_key
from gateway.customers import Customer, customer
from gateway.messages import Basket, Order
from gateway.shop import TheShop

routes = APIRouter(tags=["orders"])
Key = Annotated[IdempotencyKey, Depends(idempotency_key(customer))]


@routes.post("/orders", status_code=201)
async def create_order(basket: Basket, customer: Customer, key: Key, shop: TheShop) -> Order:
    """Ask for the prices, then have the order written; under the same key it is the same order."""
    prices = await shop.prices(basket.lines)
    return await shop.order(customer, basket, prices=prices, key=key.correlation_id)
