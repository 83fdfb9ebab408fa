"""The producer as a dependency of routes: `Producer` in an ``async def``, `SyncProducer` in a ``def``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any
from weakref import WeakValueDictionary

from fastapi import Depends
from fastapi.requests import HTTPConnection

from autosell_rmq import BlockingProducer, RabbitMQ, RabbitMQProducer
from autosell_rmq_fastapi.state import member, only_one

type Dependency[T] = Callable[[HTTPConnection], Coroutine[Any, Any, T]]


# Dependencies are async although they await nothing: FastAPI would call others in a thread, each time.
async def get_producer(connection: HTTPConnection) -> RabbitMQProducer:
    """The producer of the app's one RabbitMQ object; ``dependency_overrides[get_producer]`` replaces it.

    Raises:
        ConfigError: the app has several, or its lifespan was not run.
    """
    return only_one(connection).producer


async def get_sync_producer(connection: HTTPConnection) -> BlockingProducer:
    """As `get_producer`, for ``def`` routes; its calls raise `ClosedError` in an ``async def``."""
    return _blocking(only_one(connection))


Producer = Annotated[RabbitMQProducer, Depends(get_producer)]
SyncProducer = Annotated[BlockingProducer, Depends(get_sync_producer)]

# Held weakly, by the routes that use them: each refers to its key.
_async_ones: WeakValueDictionary[RabbitMQ, Dependency[RabbitMQProducer]] = WeakValueDictionary()
_sync_ones: WeakValueDictionary[RabbitMQ, Dependency[BlockingProducer]] = WeakValueDictionary()


def producer_of(rmq: RabbitMQ) -> Dependency[RabbitMQProducer]:
    """The dependency for `rmq`'s producer in an app with several: ``Depends(producer_of(billing))``.

    For one `rmq` it is always the same function, so ``dependency_overrides[producer_of(billing)]`` works.
    Called for a connection it raises `ConfigError` where the app has not started `rmq`.
    """

    async def producer(connection: HTTPConnection) -> RabbitMQProducer:
        return member(connection, rmq).producer

    return _async_ones.setdefault(rmq, producer)


def sync_producer_of(rmq: RabbitMQ) -> Dependency[BlockingProducer]:
    """As `producer_of`, for ``def`` routes."""

    async def producer(connection: HTTPConnection) -> BlockingProducer:
        return _blocking(member(connection, rmq))

    return _sync_ones.setdefault(rmq, producer)


def producers_in_handlers(rmq: RabbitMQ, *others: RabbitMQ) -> dict[Callable[..., Any], Callable[[], object]]:
    """What gives these dependencies their value in `rmq`'s handlers, which have no connection to look at.

    A handler's `Producer` is that of the object that consumes its queue, in an app with several, too.
    """
    given: dict[Callable[..., Any], Callable[[], object]] = {
        get_producer: partial(_producer, rmq),
        get_sync_producer: partial(_blocking, rmq),
    }
    for one in (rmq, *others):
        given |= {producer_of(one): partial(_producer, one), sync_producer_of(one): partial(_blocking, one)}
    return given


def _producer(rmq: RabbitMQ) -> RabbitMQProducer:
    return rmq.producer


def _blocking(rmq: RabbitMQ) -> BlockingProducer:
    """Its calls run on this very loop, which is the app's."""
    return BlockingProducer(rmq.producer, asyncio.get_running_loop())
