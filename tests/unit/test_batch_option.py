"""`batch=` is refused where it would do nothing."""

from typing import Any

import pytest

from autosell_rmq import ConfigError, HandlerOptions, MemoryStore, RabbitMQ, Settings


class Transactional(MemoryStore):
    transactional = True


@pytest.mark.parametrize("batch", [0, -1, 1001, 1.5, True, "50"])
def test_it_is_a_number_of_messages(batch: Any) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match="batch="):
        HandlerOptions.resolve("orders", Settings(), batch=batch)


@pytest.mark.parametrize("alone", [{"effect": "lease"}, {"idempotency_key": None}])
def test_it_needs_a_claim_in_a_transaction(alone: Any) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match="batch=2: there is no transaction to share with"):
        HandlerOptions.resolve("orders", Settings(), batch=2, **alone)
    HandlerOptions.resolve("orders", Settings(), batch=1, **alone)


async def test_it_needs_a_store_with_transactions() -> None:
    async with RabbitMQ("memory://") as app:
        app.handler("orders", batch=2)(lambda data: data)
        with pytest.raises(ConfigError, match=r"'orders': batch=2 is not possible: MemoryStore has no trans"):
            await app.start_consuming()


async def test_it_needs_a_sync_handler_and_as_many_messages_at_once() -> None:
    async def handler(data: dict[str, Any]) -> None: ...

    async with RabbitMQ("memory://", store=Transactional()) as app:
        app.handler("orders", batch=2)(handler)
        with pytest.raises(ConfigError, match="only sync handlers"):
            await app.start_consuming()
    async with RabbitMQ("memory://", store=Transactional()) as app:
        app.handler("orders", batch=30)(lambda data: data)
        with pytest.raises(ConfigError, match="batch=30 is over prefetch=20"):
            await app.start_consuming()
