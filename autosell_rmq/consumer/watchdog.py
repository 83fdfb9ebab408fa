"""Consumers that get nothing while their queue has messages: attached anew."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from autosell_rmq.broker import Broker
from autosell_rmq.consumer.consumer import Consumer
from autosell_rmq.exceptions import BrokerError, ClosedError, ConfigError, QueueNotFound

logger = logging.getLogger(__name__)

_EVERY = 15.0  # seconds between two looks: the counts of a quorum queue are up to five seconds old
_LOOKS = 2  # in a row
_LONGEST = 20  # looks until one that stays silent is recycled again


@dataclass(slots=True)
class _Watched:
    consumer: Consumer
    delivered: int
    patience: int = _LOOKS  # looks that it may be silent for; more after each time that it was no help
    silent: int = 0  # looks so far


async def watch(consumers: Sequence[Consumer], broker: Broker) -> None:
    """Look after `consumers`, for ever.

    After the death of a queue's leader RabbitMQ may leave a consumer attached and bring it nothing. One of
    several with a single active consumer is silent by right, and is left alone.
    """
    watched = [
        _Watched(each, each.delivered) for each in consumers if not each.options.single_active_consumer
    ]
    while watched:
        await asyncio.sleep(_EVERY)
        for each in watched:
            await _look(each, broker)


async def _look(watched: _Watched, broker: Broker) -> None:
    consumer = watched.consumer
    if consumer.delivered != watched.delivered:
        watched.delivered, watched.silent, watched.patience = consumer.delivered, 0, _LOOKS
        return
    if consumer.in_hand or consumer.attachment.problem is not None:
        watched.silent = 0
        return
    try:
        ready = await broker.depth(consumer.options.queue)
    except QueueNotFound:
        await consumer.attachment.recycle("its queue is gone")
        return
    except (BrokerError, ConfigError, ClosedError) as error:
        logger.debug("queue %s: not looked at: %s", consumer.options.queue, error)
        return
    watched.silent = watched.silent + 1 if ready and consumer.delivered == watched.delivered else 0
    if watched.silent >= watched.patience:
        watched.silent, watched.patience = 0, min(watched.patience * 2, _LONGEST)
        await consumer.attachment.recycle(f"nothing was delivered, while {ready} messages are ready")
