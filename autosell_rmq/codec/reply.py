"""The reply: the seed's fields around the stored outcome, the same bytes for the same id."""

from __future__ import annotations

from typing import Any

import pydantic_core

from autosell_rmq.codec.json import decode
from autosell_rmq.exceptions import DecodeError


def success_reply(data: bytes, correlation_id: str | None) -> bytes:
    """``{"success": true, "data": …, "correlation_id": …}`` around a result that is JSON already."""
    return b'{"success":true,"data":%b,"correlation_id":%b}' % (data, pydantic_core.to_json(correlation_id))


def error_reply(error: str, code: str, correlation_id: str | None) -> bytes:
    """``{"success": false, "data": null, "error": …, "error_code": …, "correlation_id": …}``."""
    return pydantic_core.to_json(
        {
            "success": False,
            "data": None,
            "error": error,
            "error_code": code,
            "correlation_id": correlation_id,
        }
    )


def parse_reply(body: bytes) -> dict[str, Any]:
    """Read a reply of ours or of any other RPC server.

    Raises:
        DecodeError: it is no JSON object.
    """
    reply = decode(body)
    if not isinstance(reply, dict):
        raise DecodeError(f"a reply is a JSON object, this is {type(reply).__name__}")
    return reply
