"""Declaring: each entity on a throw-away channel, since a refusal closes the channel it came on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiormq.abc import AbstractChannel, AbstractConnection

from autosell_rmq.brokers.rabbitmq import errors
from autosell_rmq.brokers.rabbitmq.connecting import open_channel
from autosell_rmq.brokers.rabbitmq.properties import arguments
from autosell_rmq.exceptions import BrokerUnavailable, ConfigError
from autosell_rmq.topology import Exchange, Queue, QueueBinding, Topology

_QUORUM_PRIORITIES = (4, 3)  # the RabbitMQ version from which quorum queues have priorities


async def declare(connection: AbstractConnection, topology: Topology, *, timeout: float) -> None:
    """Declare the exchanges, then the queues, then the bindings."""
    async with _channel(connection, timeout) as channel:
        for exchange in topology.exchanges:
            await _exchange(channel, exchange, timeout)
        for queue in topology.queues:
            _check_priorities(connection, queue)
            await _queue(channel, queue, timeout)
        for binding in topology.bindings:
            await _bind(channel, binding, timeout)


async def depth(connection: AbstractConnection, queue: str, *, timeout: float) -> int:
    """How many messages of a queue are ready."""
    async with _channel(connection, timeout) as channel, _translated(queue):
        declared = await channel.queue_declare(queue, passive=True, timeout=timeout)
        return declared.message_count or 0


@asynccontextmanager
async def _channel(connection: AbstractConnection, timeout: float) -> AsyncGenerator[AbstractChannel]:
    channel = await open_channel(connection, timeout, confirms=False)
    try:
        yield channel
    finally:
        # A refusal has closed it already. The client library swallows a cancellation of the close.
        await errors.channel_closed(channel)


@asynccontextmanager
async def _translated(name: str) -> AsyncGenerator[None]:
    try:
        with errors.bare_cancellation(BrokerUnavailable):
            yield
    except BrokerUnavailable:
        raise
    except (*errors.LOST, TimeoutError) as error:
        raise errors.declaring(error, name) from None


async def _exchange(channel: AbstractChannel, exchange: Exchange, timeout: float) -> None:
    async with _translated(exchange.name):
        await channel.exchange_declare(
            exchange.name,
            exchange_type=exchange.type,
            durable=True,
            arguments=arguments(exchange.arguments) or None,
            timeout=timeout,
        )


async def _queue(channel: AbstractChannel, queue: Queue, timeout: float) -> None:
    async with _translated(queue.name):
        await channel.queue_declare(
            queue.name,
            passive=queue.passive,
            durable=True,
            arguments=arguments(queue.arguments) or None,
            timeout=timeout,
        )


async def _bind(channel: AbstractChannel, binding: QueueBinding, timeout: float) -> None:
    async with _translated(binding.queue):
        await channel.queue_bind(
            binding.queue,
            binding.exchange,
            binding.routing_key,
            arguments=arguments(binding.arguments) or None,
            timeout=timeout,
        )


def _check_priorities(connection: AbstractConnection, queue: Queue) -> None:
    if "x-max-priority" not in queue.arguments or queue.arguments.get("x-queue-type") != "quorum":
        return
    version = server_version(connection)
    if version < _QUORUM_PRIORITIES:
        raise ConfigError(
            f"queue {queue.name!r}: max_priority on a quorum queue needs RabbitMQ 4.3 or later, this is"
            f' {".".join(map(str, version))}; use queue_type="classic" for a priority queue here'
        )


def server_version(connection: AbstractConnection) -> tuple[int, ...]:
    """The broker's version as it said itself: ``(3, 10, 8)``."""
    text = connection.server_properties.get("version", "0") if connection.server_properties else "0"
    if isinstance(text, bytes | bytearray):
        text = text.decode()
    return tuple(int(part) for part in str(text).split("-")[0].split("+")[0].split(".") if part.isdecimal())
