"""The pricing service: a router of the core, which would run as it is under FastAPI or plain asyncio."""

from decimal import Decimal

from autosell_rmq import Router
from shop.messages import Line, Quote
from shop.names import PRICES

CATALOGUE = {"lamp": Decimal("24.50"), "sofa": Decimal("445.00"), "rug": Decimal("89.90")}

router = Router()


@router.handler(PRICES, idempotency_key=None)  # it only looks: asked twice, it answers twice
async def quote(lines: list[Line]) -> Quote:
    """The price of one of each, as far as it is sold here."""
    return Quote(prices={line.item: CATALOGUE[line.item] for line in lines if line.item in CATALOGUE})
