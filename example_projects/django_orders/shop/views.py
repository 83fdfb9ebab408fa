"""The shop's pages: each asks another service by RabbitMQ and waits for its reply."""

import json
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST
from pydantic import ValidationError

from autosell_rmq import BrokerError, ReplyTimeout
from autosell_rmq_django import producer
from shop.messages import Basket, NewOrder, Quote
from shop.models import Order
from shop.names import ORDERS, PRICES

PATIENCE = 10.0  # seconds that a customer waits for each reply


class Failed(Exception):
    """The other side has answered that it could not."""


Unavailable = (BrokerError, ReplyTimeout, Failed)


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """A form, and the last orders."""
    orders = Order.objects.select_related("customer").prefetch_related("lines", "mails")[:10]
    return render(request, "shop/index.html", {"orders": orders})


@csrf_exempt  # called by programs, which have no session
@require_POST
def orders(request: HttpRequest) -> JsonResponse:
    """Order: ask for the prices, then have the order written.

    The header ``Idempotency-Key`` names the order: sent twice, it is one order, with one and the same answer.
    """
    try:
        basket = Basket.model_validate_json(request.body)
    except ValidationError as error:
        return JsonResponse({"error": json.loads(error.json(include_url=False))}, status=400)
    try:
        reply = asked(producer.send_message(PRICES, basket.lines, timeout=PATIENCE))
        new = NewOrder(**basket.model_dump(), prices=Quote(**reply).prices)
        if missing := {line.item for line in new.lines} - set(new.prices):
            return JsonResponse({"error": f"no such item: {', '.join(sorted(missing))}"}, status=422)
        key = request.headers.get("Idempotency-Key")
        created = asked(producer.send_message(ORDERS, new, timeout=PATIENCE, correlation_id=key))
    except Unavailable as error:
        return JsonResponse({"error": f"not now: {error}"}, status=503)
    return JsonResponse(created, status=201)


@require_GET
async def price(request: HttpRequest, item: str) -> JsonResponse:
    """The price of one thing, by an async view."""
    try:
        quote = Quote(**asked(await producer.asend_message(PRICES, [{"item": item}], timeout=PATIENCE)))
    except Unavailable as error:
        return JsonResponse({"error": f"not now: {error}"}, status=503)
    if item not in quote.prices:
        return JsonResponse({"error": f"no such item: {item}"}, status=404)
    return JsonResponse({"item": item, "price": quote.prices[item]})


def asked(reply: dict[str, Any]) -> dict[str, Any]:
    """What the other side returned."""
    if not reply["success"]:
        raise Failed(reply["error"])
    return reply["data"]
