"""A server in memory of a test's own."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from contextlib import contextmanager

from autosell_rmq.brokers.memory import Clock, MemoryServer
from autosell_rmq.brokers.memory.registry import forget, register


@contextmanager
def memory_server(
    name: str | None = None, *, clock: Clock | None = None, server: MemoryServer | None = None
) -> Generator[MemoryServer]:
    """A fresh server at ``server.url``, which is cut and forgotten at the end.

    Args:
        name: for a test that needs ``memory://name``; else it gets a name of its own.
        clock: a `VirtualClock` to move the time by hand.
        server: this one, of a class of yours, with a name and a clock of its own.
    """
    server = server or MemoryServer(name or f"test-{uuid.uuid4().hex}", clock=clock)
    register(server)
    try:
        yield server
    finally:
        server.close_connections()
        forget(server)
