"""The ``Idempotency-Key`` header as a dependency: validated, and scoped by the caller."""

# No `from __future__ import annotations`: FastAPI reads those below, and they name what a closure holds.
import hashlib
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, HTTPException, Request, status
from pydantic.json_schema import SkipJsonSchema

from autosell_rmq import ConfigError

type Scope = Callable[..., object]

_NAME = "Idempotency-Key"

# A structured field's string, in quotes, as draft-ietf-httpapi-idempotency-key-header has it; or bare, as
# many clients send it: then without what would make it a list or give it parameters.
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')
_BARE = re.compile(r"[!#-+\--:<-\[\]-~]{1,255}")

# Shorter than a hash, so that no plain text is taken for one.
_PLAIN = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}")

_DESCRIPTION = (
    "A value of your own that is new for each request, such as a UUID, and the same when you repeat one:"
    " what you ask for then happens once. 1 to 255 printable ASCII characters, in quotes or bare."
)
_MISSING = (
    f"the {_NAME} header is missing: send a value that is new for each request, such as a UUID, and the same"
    " one when you repeat it"
)
_MALFORMED = (
    f"the {_NAME} header cannot be read: expected one value of 1 to 255 printable ASCII characters, in"
    " quotes, or bare and then without spaces, commas, semicolons and backslashes"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """What a request is known by.

    Attributes:
        id: the caller's key, fit for a URL; a long or unusual one as its hash.
        correlation_id: the id with the caller's scope before it, for the messages of the request.
    """

    id: str
    correlation_id: str


def idempotency_key(scope: Scope | None, *, required: bool = True) -> Callable[..., IdempotencyKey]:
    """Make a dependency that reads the ``Idempotency-Key`` header.

    ::

        Key = Annotated[IdempotencyKey, Depends(idempotency_key(current_user_id))]

        @app.post("/orders")
        async def create_order(order: Order, key: Key) -> dict[str, Any]:
            return await rmq.producer.send_message("orders", order, correlation_id=key.correlation_id)

    A missing header, two of them, or one that cannot be read is answered with 400.

    Args:
        scope: a dependency that returns who the caller is, as a string, a number or a UUID: one key of two
            callers is then two requests. It has to stay the same when a request is repeated, which an access
            token may not, and it is shown in logs, so it should be no secret. None: all callers are one.
        required: False gives a request without the header a new key of its own.

    Raises:
        ConfigError: `scope` is no dependency.
    """
    # Optional for FastAPI, which would answer 422 without it, and not the 400 of the draft.
    description = f"Required. {_DESCRIPTION}" if required else _DESCRIPTION

    def key_of(
        request: Request,
        caller: Annotated[str, Depends(scoped_by(scope))],
        value: Annotated[str | SkipJsonSchema[None], Header(alias=_NAME, description=description)] = None,
    ) -> IdempotencyKey:
        if value is None and required:
            raise HTTPException(status.HTTP_400_BAD_REQUEST, _MISSING)
        key = _parsed(request.headers.getlist(_NAME)) if value is not None else str(uuid.uuid4())
        return key_under(caller, _plain(key))

    return key_of


def key_under(caller: str, id_: str) -> IdempotencyKey:
    """The key of a caller's request; a caller holds no colon, so that no two have one in common."""
    return IdempotencyKey(id=id_, correlation_id=f"{caller}:{id_}")


def scoped_by(scope: Scope | None) -> Callable[..., str]:
    """A dependency that gives the caller as it stands in ids: what `scope` returns, or nothing for None."""
    if scope is None:
        return _everybody
    if not callable(scope):
        raise ConfigError(f"scope={scope!r}: expected a dependency that returns the caller, or None")

    def caller_of(caller: Annotated[object, Depends(scope)]) -> str:
        # Never guess: callers without a name would be one caller, and so would all that are True.
        named = isinstance(caller, str | int | uuid.UUID) and not isinstance(caller, bool)
        name = str(caller) if named else ""
        if not name:
            raise ConfigError(
                f"scope={getattr(scope, '__name__', scope)!r} has returned no name of a caller, but"
                f" {type(caller).__name__}: expected a string that is not empty, a number or a UUID"
            )
        return _plain(name)

    return caller_of


def _everybody() -> str:
    return ""


def _parsed(values: list[str]) -> str:
    [value, *more] = values
    if not more:
        if quoted := _QUOTED.fullmatch(value):
            return quoted[1]  # its escapes left in: they are one way of writing it, and the only one
        if _BARE.fullmatch(value):
            return value
    raise HTTPException(status.HTTP_400_BAD_REQUEST, _MALFORMED)


def _plain(text: str) -> str:
    """The text where it is short and harmless in a URL, a log and an AMQP property; else its hash."""
    if _PLAIN.fullmatch(text):
        return text
    return f"sha256-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
