"""What is answered to a caller whose request became a message."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import BaseModel, Field

from autosell_rmq import Record


class Accepted(BaseModel):
    """The body of the answer 202: the request will be handled, whatever happens to this process."""

    id: str
    status: Literal["pending"]
    status_url: str


class Pending(BaseModel):
    """It waits, or is being handled: ask again later."""

    id: str
    status: Literal["pending"]


class Reply(BaseModel):
    """The reply that ``send_message`` would have returned."""

    success: Literal[True]
    data: Any
    correlation_id: str


class Done(BaseModel):
    """It was handled, once, with this result."""

    id: str
    status: Literal["done"]
    reply: Reply


class Failed(BaseModel):
    """It was given up, and is a dead letter now; somebody may look into it and replay it."""

    id: str
    status: Literal["failed"]
    error: str
    error_code: str


type Status = Annotated[Pending | Done | Failed, Field(discriminator="status")]


def status_body(record: Record, *, id_: str, correlation_id: str) -> bytes:
    """A `Status` as JSON; a stored result goes into it byte for byte."""
    match record.state:
        case "done":
            data = record.data or b"null"
            parts = pydantic_core.to_json(id_), data, pydantic_core.to_json(correlation_id)
            return b'{"id":%b,"status":"done","reply":{"success":true,"data":%b,"correlation_id":%b}}' % parts
        case "failed":
            noted = pydantic_core.from_json(record.data or b"{}")
            error, code = str(noted.get("error", "")), str(noted.get("error_code", ""))
            return Failed(id=id_, status="failed", error=error, error_code=code).model_dump_json().encode()
        case _:
            return Pending(id=id_, status="pending").model_dump_json().encode()
