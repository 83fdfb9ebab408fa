"""What a customer hears when the shop does not do as asked; what exactly happened is for the log."""

import logging

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from autosell_rmq import BrokerError, ReplyTimeout
from gateway.shop import ShopError, UnknownItemError

logger = logging.getLogger(__name__)


async def unknown_item(request: Request, error: Exception) -> JSONResponse:
    """The customer's mistake."""
    return JSONResponse({"detail": str(error)}, 422)


async def failed(request: Request, error: Exception) -> JSONResponse:
    """The shop's failure, or RabbitMQ's."""
    logger.warning("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    match error:
        case ShopError():
            return JSONResponse({"detail": "the shop could not do it"}, 502)
        case ReplyTimeout():  # the request is in the shop's queue, and may be handled later
            words = "the shop has not answered in time: repeat the request under the same Idempotency-Key"
            return JSONResponse({"detail": words}, 504)
        case _:
            return JSONResponse({"detail": "the shop cannot be reached"}, 503)


def install(app: FastAPI) -> None:
    """Answer these errors, wherever in a request they are raised."""
    app.add_exception_handler(UnknownItemError, unknown_item)
    for error in (ShopError, ReplyTimeout, BrokerError):
        app.add_exception_handler(error, failed)
