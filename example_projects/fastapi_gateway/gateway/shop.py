"""The shop as the gateway sees it: two questions that are asked by RabbitMQ, and what may go wrong."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any

from fastapi import Depends

from autosell_rmq_fastapi import Producer
from gateway.messages import Basket, Line, NewOrder, Order, Quote
from gateway.settings import ORDERS, PRICES

PATIENCE = 10.0  # seconds that somebody waits for each reply


class UnknownItemError(Exception):
    """The shop does not sell this."""


class ShopError(Exception):
    """The shop has answered that it could not."""


class Shop:
    """Asks the shop. Where no answer comes, what `send_message` raises is raised."""

    def __init__(self, producer: Producer, patience: float = PATIENCE) -> None:
        self._producer = producer
        self._patience = patience

    async def prices(self, lines: Iterable[Line]) -> dict[str, Decimal]:
        """The price of one of each.

        Raises:
            UnknownItemError: not all of it is sold.
            ShopError: the pricing service has failed.
        """
        wanted = list(lines)
        reply = await self._producer.send_message(PRICES, wanted, timeout=self._patience)
        prices = Quote(**_data(reply)).prices
        if missing := {line.item for line in wanted} - set(prices):
            raise UnknownItemError(f"no such item: {', '.join(sorted(missing))}")
        return prices

    async def order(self, customer: str, basket: Basket, *, prices: dict[str, Decimal], key: str) -> Order:
        """Have an order written; asked again under the same `key`, it is one order with one answer.

        Raises:
            ShopError: it was refused.
        """
        new = NewOrder(customer=customer, lines=basket.lines, prices=prices)
        reply = await self._producer.send_message(ORDERS, new, timeout=self._patience, correlation_id=key)
        return Order(**_data(reply))


def _data(reply: dict[str, Any]) -> dict[str, Any]:
    """What the other side returned."""
    if not reply["success"]:
        raise ShopError(reply["error"])
    data: dict[str, Any] = reply["data"]
    return data


def get_shop(producer: Producer) -> Shop:
    """For routes and for handlers of messages alike."""
    return Shop(producer)


TheShop = Annotated[Shop, Depends(get_shop)]
