"""A consumer of the seed's kind that runs while a test looks on."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from autosell_rmq import RabbitMQConsumer
from tests.acceptance.places import Place


async def echo(message_data: dict[str, Any]) -> dict[str, Any]:
    return message_data


@asynccontextmanager
async def consuming(
    place: Place, queue: str, handler: Callable[..., object] = echo, *, max_retries: int | None = None
) -> AsyncGenerator[RabbitMQConsumer]:
    """A started consumer, closed at the end."""
    consumer = RabbitMQConsumer(place.url, queue, max_retries=max_retries)
    consumer.set_message_handler(handler)
    await consumer.start_consuming()
    try:
        yield consumer
    finally:
        await consumer.close()
