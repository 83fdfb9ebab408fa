"""Opening a connection: one attempt at one host, and a round over all of them."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from importlib.metadata import version
from urllib.parse import quote

from aio_pika import Connection
from aiormq.abc import AbstractChannel, AbstractConnection
from yarl import URL

from autosell_rmq.brokers.rabbitmq import errors, tls
from autosell_rmq.brokers.rabbitmq.frames import FramedConnection
from autosell_rmq.config import BrokerURL, Settings, bracketed
from autosell_rmq.exceptions import AccessRefused, AutosellRmqError, BrokerUnavailable

logger = logging.getLogger(__name__)

_HURRY = 3.0  # seconds for a host while there is another one to try
_NEXT_ADDRESS = 0.25  # seconds until the next address of a host name is tried beside the first (RFC 8305)


async def connect(settings: Settings, purpose: str) -> Connection:
    """Open one connection to the first host that takes it.

    Raises:
        BrokerUnavailable: none does at the moment.
        AccessRefused: none does, and one has refused the login, the vhost, a permission or TLS: an operator
            has to look at it.
    """
    url = settings.broker_url
    addresses = list(url.addresses)
    if settings.shuffle_hosts:
        random.shuffle(addresses)
    failed: list[AutosellRmqError] = []
    for left, (host, port) in zip(reversed(range(len(addresses))), addresses, strict=True):
        timeout = min(settings.connect_timeout, _HURRY) if left else settings.connect_timeout
        try:
            return await _attempt(settings, url, host, port, purpose, timeout)
        except (BrokerUnavailable, AccessRefused) as error:
            failed.append(error)
    told = "; ".join(map(str, failed))
    raise (
        AccessRefused(told) if any(isinstance(e, AccessRefused) for e in failed) else BrokerUnavailable(told)
    )


async def _attempt(
    settings: Settings, url: BrokerURL, host: str, port: int, purpose: str, timeout: float
) -> Connection:
    connection = FramedConnection(
        _address(url, host, port, settings.heartbeat),
        ssl_context=await tls.context(settings),
        client_properties={
            "connection_name": f"{url.name or 'autosell-rmq'} {purpose}",
            "product": "autosell-rmq",
            "version": version("autosell-rmq"),
            "information": "https://pypi.org/project/autosell-rmq/",
        },
        happy_eyeballs_delay=_NEXT_ADDRESS,
    )
    where = replace(url, addresses=((host, port),))
    try:
        with errors.bare_cancellation(BrokerUnavailable):
            async with asyncio.timeout(timeout):
                await connection.connect()
    except BrokerUnavailable:
        raise
    except (*errors.LOST, OSError, TimeoutError) as error:
        raise errors.connecting(error, where) from None
    finally:
        if connection.transport is None:  # or, collected later, it leaves a coroutine that nobody awaits
            await connection.close()
    logger.info("connected to RabbitMQ at %s (%s)", where, purpose)
    return connection


async def open_channel(connection: AbstractConnection, timeout: float, *, confirms: bool) -> AbstractChannel:
    """Open a channel within `timeout` seconds.

    Raises:
        BrokerUnavailable: the connection is lost, or too busy.
    """
    try:
        with errors.bare_cancellation(BrokerUnavailable):
            async with asyncio.timeout(timeout):  # the client's own does not cover its full write queue
                return await connection.channel(publisher_confirms=confirms, on_return_raises=True)
    except BrokerUnavailable:
        raise
    except (*errors.LOST, OSError, TimeoutError) as error:
        raise BrokerUnavailable(f"no channel could be opened: {errors.broker_text(error)}") from None


def underlying(connection: Connection) -> AbstractConnection | None:
    """The connection of aiormq below aio-pika's; None once it is closed."""
    transport = connection.transport
    return None if transport is None or transport.connection.is_closed else transport.connection


def _address(url: BrokerURL, host: str, port: int, heartbeat: int) -> URL:
    login = f"{quote(url.user, safe='')}:{quote(url.password, safe='')}"
    return URL(
        f"{url.scheme}://{login}@{bracketed(host)}:{port}/{quote(url.vhost, safe='')}"
        f"?heartbeat={url.heartbeat or heartbeat}",
        encoded=True,
    )
