"""A fork: the child lets go of its parent's connections, and opens its own."""

from __future__ import annotations

import asyncio
import ctypes
import os
import weakref
from typing import Protocol


class _Socket(Protocol):
    """As much of a socket as event loops show of theirs."""

    def fileno(self) -> int: ...


class Forked(Protocol):
    """What has something of one process."""

    def after_fork(self) -> None:
        """In the child, called by Python itself: begin anew, and `leave` alone what was inherited."""
        ...


_watched: weakref.WeakSet[Forked] = weakref.WeakSet()
_sockets: weakref.WeakKeyDictionary[asyncio.BaseProtocol, _Socket] = weakref.WeakKeyDictionary()


def watch(thing: Forked) -> None:
    """From now on the thing's `after_fork` is called in each forked child, as long as it lives."""
    _watched.add(thing)


def own(protocol: asyncio.BaseProtocol, transport: asyncio.BaseTransport) -> None:
    """The socket under a protocol belongs to this process, until `disown`: a forked child does not get it.

    Whatever the child does with its copy of the transport, then, the parent's connection is untouched; and
    it ends with the parent, not only with the last of its children.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        _sockets[protocol] = sock


def disown(protocol: asyncio.BaseProtocol) -> None:
    """Its connection is lost: by now the number of the socket may be that of another file."""
    _sockets.pop(protocol, None)


def leave(*inherited: object) -> None:
    """Never to be collected, not even when the interpreter ends: to end them is the parent's business."""
    for thing in inherited:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _in_child() -> None:
    for sock in list(_sockets.values()):
        _close(sock)
    _sockets.clear()
    for thing in list(_watched):
        thing.after_fork()


def _close(sock: _Socket) -> None:
    """In place, by its number: the inherited objects may still be used, and must not reach another file."""
    number = sock.fileno()
    if number < 0:
        return
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.dup2(nothing, number, inheritable=False)
    finally:
        os.close(nothing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
