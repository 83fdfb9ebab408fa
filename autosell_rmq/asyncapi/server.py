"""The broker's nodes as servers of the document: where they are, never who logs in."""

from __future__ import annotations

from urllib.parse import quote

from autosell_rmq.asyncapi.parts import Json
from autosell_rmq.config import BrokerURL, bracketed


def servers(url: BrokerURL) -> Json:
    """The server objects by their names: ``broker``, ``broker-2`` and so on."""
    names = ("broker", *(f"broker-{n}" for n in range(2, len(url.addresses) + 1)))
    return {name: _server(url, *address) for name, address in zip(names, url.addresses, strict=True)}


def _server(url: BrokerURL, host: str, port: int) -> Json:
    if url.scheme == "memory":
        return {
            "host": host or "localhost",
            "protocol": "memory",
            "description": "A broker in the memory of the process, for tests.",
        }
    return {
        "host": f"{bracketed(host)}:{port}",
        "pathname": "/" if url.vhost == "/" else f"/{quote(url.vhost, safe='')}",
        "protocol": url.scheme,
        "protocolVersion": "0.9.1",
        "description": "RabbitMQ",
    }
