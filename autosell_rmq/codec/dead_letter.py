"""The dead letter: why a message was given up, and the message itself, restorable byte for byte."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import pydantic_core

from autosell_rmq.codec.json import decode
from autosell_rmq.exceptions import DecodeError
from autosell_rmq.message import NO_HEADERS, Headers, Message, Properties

# An error's text comes from anywhere and may be megabytes.
MAX_REASON: Final = 8192  # characters
_SHORT: Final = 255  # bytes of a short string in AMQP
_OCTET: Final = 255


class DeadLetterReason(StrEnum):
    """Why, in a word for programs. The Russian words that go with it are the seed's."""

    MAX_RETRIES_EXCEEDED = "max_retries_exceeded"
    INVALID_JSON = "invalid_json"
    UNHANDLED_EXCEPTION = "unhandled_exception"
    NO_HANDLER = "no_handler"
    INVALID_MESSAGE = "invalid_message"
    REJECTED = "rejected"
    EXPIRED = "expired"
    DELIVERY_LIMIT = "delivery_limit"
    TOO_LARGE = "too_large"

    def words(self, detail: str) -> str:
        """The reason as people read it."""
        text = _WORDS[self].format(detail=detail)
        return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"


_WORDS: Final[Mapping[DeadLetterReason, str]] = {
    DeadLetterReason.MAX_RETRIES_EXCEEDED: (
        "Превышено максимальное количество попыток: Ошибка обработки сообщения: {detail}"
    ),
    DeadLetterReason.INVALID_JSON: "Ошибка парсинга JSON: {detail}",
    DeadLetterReason.UNHANDLED_EXCEPTION: "Необработанное исключение в обработчике: {detail}",
    DeadLetterReason.NO_HANDLER: "Обработчик сообщений не установлен",
    DeadLetterReason.INVALID_MESSAGE: "Сообщение не прошло проверку: {detail}",
    DeadLetterReason.REJECTED: "Сообщение отклонено: {detail}",
    DeadLetterReason.EXPIRED: "Истёк срок обработки сообщения: {detail}",
    DeadLetterReason.DELIVERY_LIMIT: "Превышено количество доставок: {detail}",
    DeadLetterReason.TOO_LARGE: "Сообщение слишком большое: {detail}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A dead letter taken apart: the message as it was, and why it is here."""

    body: bytes
    properties: Properties
    queue: str
    reason: str
    reason_code: str | None


def envelope(
    message: Message,
    reason: DeadLetterReason,
    detail: str,
    *,
    attempts: int,
    error_type: str | None,
    errors: Sequence[Mapping[str, object]] = (),
) -> bytes:
    """The seed's five fields and ours, as JSON; `errors` only where there are any."""
    text, encoding = _text(message.body)
    properties = message.properties
    return pydantic_core.to_json(
        {
            "original_body": text,
            "reason": reason.words(detail),
            "failed_at": dt.datetime.now(dt.UTC).isoformat(),
            "correlation_id": properties.correlation_id,
            "original_queue": message.queue,
            "reason_code": reason.value,
            "attempts": attempts,
            "error_type": error_type,
            "message_id": properties.message_id,
            "original_body_encoding": encoding,
            "original_properties": _properties(message),
            "original_headers": _portable(properties.headers),
            **({"errors": errors} if errors else {}),
        }
    )


def restore(body: bytes) -> Envelope:
    """Take a dead letter apart, ours or one of autosell-rmq 0.1.4.

    Anybody may have written it, so nothing is taken that a message of AMQP could not have had.

    Raises:
        DecodeError: it is no envelope, such as a message that the broker dead-lettered raw.
    """
    letter = decode(body)
    if not isinstance(letter, dict) or not isinstance(letter.get("original_body"), str):
        raise DecodeError("no dead letter's envelope: the field original_body is missing")
    text: str = letter["original_body"]
    wire = letter.get("original_properties") or {}
    headers = letter.get("original_headers")
    try:
        return Envelope(
            body=base64.b64decode(text)
            if letter.get("original_body_encoding") == "base64"
            else text.encode(),
            properties=Properties(
                content_type=_short(wire.get("content_type")),
                content_encoding=_short(wire.get("content_encoding")),
                headers=_restored(headers) if isinstance(headers, dict) else NO_HEADERS,
                persistent=wire.get("persistent") is not False,
                priority=_octet(wire.get("priority")),
                correlation_id=_short(letter.get("correlation_id")),
                reply_to=_short(wire.get("reply_to")),
                message_id=_short(letter.get("message_id")),
                timestamp=_moment(wire.get("timestamp")),
                type=_short(wire.get("type")),
                app_id=_short(wire.get("app_id")),
            ),
            queue=str(letter.get("original_queue", "")),
            reason=str(letter.get("reason", "")),
            reason_code=letter.get("reason_code"),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DecodeError(f"no dead letter's envelope: {error}") from error


def _short(value: object) -> str | None:
    if value is None or (isinstance(value, str) and len(value.encode()) <= _SHORT):
        return value
    raise ValueError(f"expected a string of up to {_SHORT} bytes")


def _octet(value: object) -> int | None:
    if value is None or (isinstance(value, int) and 0 <= value <= _OCTET):
        return value
    raise ValueError(f"expected a whole number from 0 to {_OCTET}")


def _moment(value: object) -> dt.datetime | None:
    if value is None:
        return None
    moment = dt.datetime.fromisoformat(str(value))
    if moment.tzinfo is None or moment.timestamp() < 0:
        raise ValueError("expected a time with its zone, after 1970")
    return moment


def _text(body: bytes) -> tuple[str, str]:
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"


def _properties(message: Message) -> dict[str, object]:
    wire = message.properties
    return {
        "exchange": message.first_exchange,
        "routing_key": message.first_routing_key,
        "content_type": wire.content_type,
        "content_encoding": wire.content_encoding,
        "persistent": wire.persistent,
        "priority": wire.priority,
        "reply_to": wire.reply_to,
        "expiration": wire.expiration,
        "timestamp": wire.timestamp.isoformat() if wire.timestamp else None,
        "type": wire.type,
        "user_id": wire.user_id,
        "app_id": wire.app_id,
        **({"wire": base64.b64encode(message.wire).decode()} if message.malformed else {}),
    }


# What JSON has no type for is a table of one such name; a sender's own table that looks like one is a $table.
_TAGS: Final = frozenset({"$base64", "$datetime", "$text", "$table"})


def _portable(value: object) -> object:
    """A header's value as JSON: what JSON has no type for is tagged, so that `_restored` finds it back."""
    if isinstance(value, Mapping):
        table = {str(name): _portable(item) for name, item in value.items()}
        return {"$table": table} if len(table) == 1 and table.keys() <= _TAGS else table
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode()}
    if isinstance(value, dt.datetime):
        return {"$datetime": value.isoformat()}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and value - value == 0:  # finite
        return value
    return {"$text": str(value)}


def _restored(headers: Mapping[str, Any]) -> Headers:
    return {name: _restored_value(value) for name, value in headers.items()}


def _restored_value(value: object) -> object:
    if isinstance(value, list):
        return [_restored_value(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$base64": str(text), **rest} if not rest:
            return base64.b64decode(text)
        case {"$datetime": str(text), **rest} if not rest:
            return dt.datetime.fromisoformat(text)
        case {"$text": str(text), **rest} if not rest:
            return text
        case {"$table": dict(table), **rest} if not rest:
            return _restored(table)
        case _:
            return _restored(value)
