"""Where an app's RabbitMQ objects are found: in the state that its lifespan hands to every connection."""

from __future__ import annotations

from typing import Final

from fastapi.requests import HTTPConnection

from autosell_rmq import ConfigError, RabbitMQ

STATE: Final = "autosell_rmq"  # the key; its value is a tuple of RabbitMQ objects

_NOT_STARTED = (
    "this app has no running RabbitMQ object: pass FastAPI(lifespan=rmq_lifespan(rmq)), and run the lifespan."
    " In a test `with TestClient(app) as client` does so; with httpx's ASGITransport it takes asgi-lifespan:"
    " `async with LifespanManager(app) as manager`, and ASGITransport(app=manager.app)"
)


def running(connection: HTTPConnection) -> tuple[RabbitMQ, ...]:
    """The RabbitMQ objects that the app of this request or websocket has started: at least one.

    Raises:
        ConfigError: its lifespan has none, or was not run.
    """
    started: tuple[RabbitMQ, ...] = connection.scope.get("state", {}).get(STATE, ())
    if not started:
        raise ConfigError(_NOT_STARTED)
    return started


def only_one(connection: HTTPConnection) -> RabbitMQ:
    """The one RabbitMQ object of the app.

    Raises:
        ConfigError: it has several; or none, as `running`.
    """
    one, *more = running(connection)
    if more:
        raise ConfigError(
            f"this app has {1 + len(more)} RabbitMQ objects: say which one is meant, as in"
            " Annotated[RabbitMQProducer, Depends(producer_of(billing))]"
        )
    return one


def member(connection: HTTPConnection, rmq: RabbitMQ) -> RabbitMQ:
    """`rmq`, which the app has to have started.

    Raises:
        ConfigError: it has not; or it has started none, as `running`.
    """
    if rmq not in running(connection):
        raise ConfigError(
            "producer_of() was given a RabbitMQ object that this app has not started: add it to the lifespan,"
            " as in rmq_lifespan(billing, rmq_lifespan(orders))"
        )
    return rmq
