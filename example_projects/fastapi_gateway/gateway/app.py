"""The app: ``uvicorn gateway.app:app``."""

from fastapi import FastAPI

from autosell_rmq import RabbitMQ, RedisStore
from autosell_rmq_fastapi import rmq_docs_router, rmq_lifespan, rmq_router
from gateway import batches, errors, events, orders, standins
from gateway.settings import ALONE, BROKER, REDIS

rmq = RabbitMQ(BROKER, store=RedisStore(REDIS) if REDIS else None)
rmq.include(events.handlers)
rmq.include(batches.handlers)
if ALONE:
    rmq.include(standins.handlers)

app = FastAPI(title="Gateway", version="1.0.0", lifespan=rmq_lifespan(rmq, events.lifespan))
app.include_router(orders.routes)
app.include_router(batches.routes(rmq))
app.include_router(events.routes)
app.include_router(rmq_router(rmq))  # /health/live, /health/ready
app.include_router(rmq_docs_router(rmq))  # /rmq/docs
errors.install(app)
