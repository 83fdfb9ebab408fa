"""The FastAPI extension of autosell-rmq: an app's RabbitMQ starts and stops with it, and its routes send.

::

    app = FastAPI(lifespan=rmq_lifespan(rmq))
    app.include_router(rmq_router(rmq))

    @app.post("/orders")
    async def create_order(order: Order, producer: Producer) -> dict[str, Any]:
        return await producer.send_message("orders", order)

The names are imported when they are first used: pytest imports this package for its plugin, in every project
where the distribution is installed, with FastAPI or without.
"""

import importlib as _importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autosell_rmq_fastapi.docs import rmq_docs_router
    from autosell_rmq_fastapi.health import rmq_router
    from autosell_rmq_fastapi.injection import LifespanState, lifespan_state
    from autosell_rmq_fastapi.lifespan import rmq_lifespan
    from autosell_rmq_fastapi.producers import (
        Producer,
        SyncProducer,
        get_producer,
        get_sync_producer,
        producer_of,
        sync_producer_of,
    )
    from autosell_rmq_fastapi.requests import (
        Accept,
        Accepted,
        AcceptedRequests,
        IdempotencyKey,
        idempotency_key,
    )

__all__ = [
    "Accept",
    "Accepted",
    "AcceptedRequests",
    "IdempotencyKey",
    "LifespanState",
    "Producer",
    "SyncProducer",
    "get_producer",
    "get_sync_producer",
    "idempotency_key",
    "lifespan_state",
    "producer_of",
    "rmq_docs_router",
    "rmq_lifespan",
    "rmq_router",
    "sync_producer_of",
]

_HOMES = {
    "Accept": "requests",
    "Accepted": "requests",
    "AcceptedRequests": "requests",
    "IdempotencyKey": "requests",
    "LifespanState": "injection",
    "Producer": "producers",
    "SyncProducer": "producers",
    "get_producer": "producers",
    "get_sync_producer": "producers",
    "idempotency_key": "requests",
    "lifespan_state": "injection",
    "producer_of": "producers",
    "rmq_docs_router": "docs",
    "rmq_lifespan": "lifespan",
    "rmq_router": "health",
    "sync_producer_of": "producers",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
