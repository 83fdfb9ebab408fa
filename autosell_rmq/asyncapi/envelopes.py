"""The shapes that are the same in every app: the reply, the dead letter, the headers."""

from __future__ import annotations

from typing import Final

from autosell_rmq.asyncapi.parts import Json
from autosell_rmq.codec import DeadLetterReason
from autosell_rmq.message import CONFLICT, DEADLINE, DUE, REASON_CODE, REPLY_TYPE

# No model of a user's can have these names: pydantic gives out none with a dot.
REQUEST_HEADERS: Final = "autosell_rmq.Headers"
REPLY_HEADERS: Final = "autosell_rmq.ReplyHeaders"
DEAD_LETTER_HEADERS: Final = "autosell_rmq.DeadLetterHeaders"
DEAD_LETTER: Final = "autosell_rmq.DeadLetter"
ERROR_REPLY: Final = "autosell_rmq.ErrorReply"

CONTENT_TYPE: Final = "application/json"
CORRELATION_ID: Final = {
    "description": "The AMQP property correlation_id.",
    "location": "$message.header#/correlation_id",
}
REPLY_ADDRESS: Final = {
    "description": "The AMQP property reply_to: RabbitMQ's direct reply address, or a queue of the caller's.",
    "location": "$message.header#/reply_to",
}

_TEXT: Final = {"type": "string"}
_TEXT_OR_NULL: Final = {"type": ["string", "null"]}
_OF_THE_REQUEST: Final = {
    **_TEXT_OR_NULL,
    "description": "That of the request.",
    "examples": ["order-42"],
}
_REASON: Final = {"type": "string", "enum": [reason.value for reason in DeadLetterReason]}


def schemas() -> dict[str, Json]:
    """All of them, by name."""
    return {
        REQUEST_HEADERS: _headers(),
        REPLY_HEADERS: _reply_headers(),
        DEAD_LETTER_HEADERS: _dead_letter_headers(),
        ERROR_REPLY: _error_reply(),
        DEAD_LETTER: _dead_letter(),
    }


def message(payload: Json, headers: str, **more: object) -> Json:
    """A message object; `headers` is the name of their schema."""
    return {
        **more,
        "contentType": CONTENT_TYPE,
        "correlationId": CORRELATION_ID,
        "headers": {"$ref": f"#/components/schemas/{headers}"},
        "payload": payload,
    }


def success_reply(data: Json) -> Json:
    """The schema of a reply with this result."""
    return _object(
        {
            "success": {"const": True},
            "data": data,
            "correlation_id": _OF_THE_REQUEST,
        }
    )


def error_reply() -> Json:
    """The message of every reply that is an error."""
    return message(
        {"$ref": f"#/components/schemas/{ERROR_REPLY}"},
        REPLY_HEADERS,
        name="error_reply",
        title="Error reply",
        summary="After the last attempt, or when the message is refused.",
        bindings=_reply_bindings(),
    )


def reply(data: Json, **more: object) -> Json:
    """The message of a reply that carries a result."""
    return message(success_reply(data), REPLY_HEADERS, **more, bindings=_reply_bindings())


def dead_letter() -> Json:
    """The message that a DLQ holds."""
    return message(
        {"$ref": f"#/components/schemas/{DEAD_LETTER}"},
        DEAD_LETTER_HEADERS,
        name="dead_letter",
        title="Dead letter",
        summary="A message that was given up: whole, and with its reason.",
        description="A message too large for an envelope is here as it came, the reason in its headers.",
    )


def _reply_bindings() -> Json:
    return {"amqp": {"messageType": REPLY_TYPE, "bindingVersion": "0.3.0"}}


def _object(properties: Json, *, required: tuple[str, ...] | None = None) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
    }


def _properties() -> Json:
    return {
        "correlation_id": {
            **_TEXT,
            "description": "AMQP property. Ties the reply to the request.",
        },
        "message_id": {**_TEXT, "description": "AMQP property. The sender's id of this message."},
    }


def _headers() -> Json:
    milliseconds = {"type": "integer", "minimum": 0}
    return _object(
        {
            **_properties(),
            "reply_to": {
                **_TEXT,
                "description": "AMQP property. Where the reply goes, if it is wanted.",
            },
            DEADLINE: {
                **milliseconds,
                "description": "No attempt starts after this moment (milliseconds since 1970, UTC).",
            },
            DUE: {
                **milliseconds,
                "description": "It is not handled before this moment (milliseconds since 1970, UTC).",
            },
        },
        required=(),
    )


def _reply_headers() -> Json:
    conflict = {"type": "integer", "description": "1 where the id was used before with another body."}
    return _object({**_properties(), CONFLICT: conflict}, required=())


def _dead_letter_headers() -> Json:
    return _object({**_properties(), REASON_CODE: _REASON}, required=(REASON_CODE,))


def _error_reply() -> Json:
    return _object(
        {
            "success": {"const": False},
            "data": {"type": "null"},
            "error": {**_TEXT, "description": "For people, such as: ValueError: no such item"},
            "error_code": {**_REASON, "description": "For programs."},
            "correlation_id": _OF_THE_REQUEST,
        }
    )


def _dead_letter() -> Json:
    return _object(
        {
            "original_body": {**_TEXT, "description": "The body, as original_body_encoding says."},
            "reason": {**_TEXT, "description": "Why it was given up, for people."},
            "failed_at": {**_TEXT, "format": "date-time"},
            "correlation_id": _TEXT_OR_NULL,
            "original_queue": _TEXT,
            "reason_code": {**_REASON, "description": "Why it was given up, for programs."},
            "attempts": {"type": "integer", "minimum": 0, "description": "How often the handler ran."},
            "error_type": {**_TEXT_OR_NULL, "description": "The exception's class."},
            "message_id": _TEXT_OR_NULL,
            "original_body_encoding": {**_TEXT, "enum": ["utf-8", "base64"]},
            "original_properties": {"type": "object", "description": "The AMQP properties."},
            "original_headers": {"type": "object", "description": "The AMQP headers."},
        }
    )
