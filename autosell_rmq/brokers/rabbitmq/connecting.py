"""Opening a connection: the address, the client's name, the start-up's patience."""

from __future__ import annotations

import asyncio
import logging
import random
from importlib.metadata import version
from urllib.parse import quote

from aio_pika import Connection
from aiormq.abc import AbstractConnection
from yarl import URL

from autosell_rmq.brokers.rabbitmq import errors
from autosell_rmq.config import BrokerURL, Settings
from autosell_rmq.exceptions import BrokerUnavailable

logger = logging.getLogger(__name__)

_FIRST_WAIT = 1.0  # seconds
_LONGEST_WAIT = 30.0


async def connect(settings: Settings, purpose: str) -> Connection:
    """Open one connection, trying again until the settings' ``startup_timeout`` is over.

    Raises:
        BrokerUnavailable: no attempt came through in that time.
        AccessRefused: at once; another attempt would not help.
    """
    url = settings.broker_url
    loop = asyncio.get_running_loop()
    give_up = loop.time() + settings.startup_timeout
    wait = _FIRST_WAIT
    while True:
        try:
            return await _attempt(settings, url, purpose)
        except BrokerUnavailable as error:
            pause = wait * random.uniform(0.5, 1.0)
            if loop.time() + pause >= give_up:
                raise
            logger.warning("%s; next attempt in %.1f s", error, pause)
            await asyncio.sleep(pause)
            wait = min(wait * 2, _LONGEST_WAIT)


async def _attempt(settings: Settings, url: BrokerURL, purpose: str) -> Connection:
    connection = Connection(
        _address(url, settings.heartbeat),
        client_properties={
            "connection_name": f"{url.name or 'autosell-rmq'} {purpose}",
            "product": "autosell-rmq",
            "version": version("autosell-rmq"),
            "information": "https://pypi.org/project/autosell-rmq/",
        },
    )
    try:
        with errors.bare_cancellation(BrokerUnavailable):
            async with asyncio.timeout(settings.connect_timeout):
                await connection.connect()
    except BrokerUnavailable:
        raise
    except (*errors.LOST, OSError, TimeoutError) as error:
        raise errors.connecting(error, url) from None
    finally:
        if connection.transport is None:  # or, collected later, it leaves a coroutine that nobody awaits
            await connection.close()
    logger.info("connected to RabbitMQ at %s (%s)", url, purpose)
    return connection


def underlying(connection: Connection) -> AbstractConnection:
    """The connection of aiormq below aio-pika's.

    Raises:
        BrokerUnavailable: it is closed.
    """
    transport = connection.transport
    if transport is None or transport.connection.is_closed:
        raise BrokerUnavailable("the connection to RabbitMQ was lost")
    return transport.connection


def _address(url: BrokerURL, heartbeat: int) -> URL:
    host = f"[{url.host}]" if ":" in url.host else url.host
    login = f"{quote(url.user, safe='')}:{quote(url.password, safe='')}"
    return URL(
        f"{url.scheme}://{login}@{host}:{url.port}/{quote(url.vhost, safe='')}"
        f"?heartbeat={url.heartbeat or heartbeat}",
        encoded=True,
    )
