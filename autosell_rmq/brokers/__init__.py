"""The brokers behind the seam; the scheme of the URL chooses."""

from __future__ import annotations

from autosell_rmq.broker import Broker
from autosell_rmq.config import Settings


def create_broker(settings: Settings) -> Broker:
    """The broker that the settings' URL names; not yet connected."""
    if settings.broker_url.scheme == "memory":
        from autosell_rmq.brokers.memory import MemoryBroker

        return MemoryBroker(settings)
    # Only here, so that a process on memory:// never loads the client library.
    from autosell_rmq.brokers.rabbitmq import RabbitBroker

    return RabbitBroker(settings)
