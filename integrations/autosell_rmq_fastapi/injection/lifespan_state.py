"""What the app's lifespan yielded, for dependencies that serve routes and handlers alike."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.datastructures import State
from fastapi.requests import HTTPConnection


def lifespan_state(connection: HTTPConnection) -> State:
    """The connection's ``state``; a handler gets what the lifespan yielded, as a route does.

    Each request and each message has a copy of its own, with the same objects in it.
    """
    return connection.state


LifespanState = Annotated[State, Depends(lifespan_state)]
