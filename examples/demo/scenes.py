"""What is shown: four things that the library promises, and two services that rely on them."""

import asyncio
import json

from backstage import Backstage
from screen import heading, letter, reply, say, transcript
from services import CUSTOMER, Services
from worker import Worker

from autosell_rmq import RabbitMQProducer

ORDER = {"item": "lamp", "quantity": 2}


async def an_order(producer: RabbitMQProducer, queue: str) -> None:
    """A request and its reply."""
    heading("1. An order is answered", "a request, and its reply, matched by correlation id")
    say("producer", f"send_message: {json.dumps(ORDER)}")
    reply(await producer.send_message(queue, ORDER, correlation_id="order-1"))


async def a_duplicate(producer: RabbitMQProducer, queue: str) -> None:
    """The same request again."""
    heading("2. A duplicate gets the same reply", "the same correlation id: the handler does not run again")
    runs = transcript.count("handler: ")
    say("producer", 'send_message: the same order, under the same id "order-1"')
    reply(await producer.send_message(queue, ORDER, correlation_id="order-1"))
    say("demo", f"runs of the handler meanwhile: {transcript.count('handler: ') - runs}", "bold")


async def a_failure(producer: RabbitMQProducer, queue: str, backstage: Backstage) -> None:
    """A request that cannot be handled."""
    heading(
        "3. A failure is retried, then kept", "1 and 2 seconds later; then it is in the DLQ, with its reason"
    )
    say("producer", 'send_message: {"item": "unicorn"}')
    reply(await producer.send_message(queue, {"item": "unicorn"}, correlation_id="order-2"))
    letter(f"{queue}_dlq", await backstage.letter(f"{queue}_dlq"))


async def a_stop(producer: RabbitMQProducer, queue: str, worker: Worker) -> None:
    """SIGTERM while a handler runs."""
    heading("4. A graceful stop", "SIGTERM while a handler runs: it finishes, its reply arrives")
    say("producer", 'send_message: {"item": "sofa"}')
    asked = asyncio.create_task(producer.send_message(queue, {"item": "sofa"}, correlation_id="order-3"))
    await transcript.has("packing takes a while")
    say("demo", "SIGTERM to the consumer", "bold")
    worker.terminate()
    reply(await asked)
    say("demo", await worker.ended(), "bold")


async def a_gateway(services: Services) -> None:
    """The example projects: an order by HTTP, sent twice."""
    shop, gateway = await services.ready()
    if shop is not None:
        heading("5. Two services", "HTTP → FastAPI gateway → RabbitMQ → Django handler → a row, and back")
        say("demo", f"gateway: process {gateway.pid}, shop: process {shop.pid}", "dim")
    else:
        heading(
            "5. A gateway", "HTTP → FastAPI → a broker in its memory, with stand-ins for the shop → and back"
        )
        say("demo", f"gateway: process {gateway.pid}; on RabbitMQ it asks the Django shop", "dim")
    basket = {"lines": [ORDER]}
    say("client", f'POST /orders, Idempotency-Key "click-1", customer {CUSTOMER}: {json.dumps(basket)}')
    await _ordered(services, basket)
    say("client", "the same again, as after a lost answer")
    await _ordered(services, basket)
    if shop is not None:
        say("demo", f"orders in the shop's database: {services.rows()}", "bold")
    say("gateway", f"GET /events, what it has consumed: {json.dumps(await services.event())}")
    status, ready = await services.get("/health/ready")
    say("gateway", f"GET /health/ready: {status} {ready['status']}; its handlers are described at /rmq/docs")


async def _ordered(services: Services, basket: object) -> None:
    status, answer = await services.post("/orders", basket, key="click-1")
    say("gateway", f"{status} {json.dumps(answer)}", "bold green")
