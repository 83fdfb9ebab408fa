"""Which server ``memory://name/vhost`` means: one for the whole process."""

from __future__ import annotations

from autosell_rmq.brokers.memory.server import MemoryServer

_servers: dict[tuple[str, str], MemoryServer] = {}


def named_server(name: str, vhost: str = "/") -> MemoryServer:
    """The server of that name, started when it is asked for first."""
    return _servers.setdefault((name, vhost), MemoryServer(name, vhost))


def register(server: MemoryServer) -> None:
    """Make it the one that its URL means."""
    _servers[server.name, server.vhost] = server


def forget(server: MemoryServer) -> None:
    """Let the next connection to its URL find a new one."""
    _servers.pop((server.name, server.vhost), None)
