"""JSON, strictly: UTF-8 without a BOM, finite numbers, at most 200 levels deep."""

from __future__ import annotations

import json as standard
import math

import pydantic_core

from autosell_rmq.exceptions import DecodeError, EncodeError, MessageTooLarge

# pydantic_core reads 1e999 as infinity. Only numbers that could be that large are looked at twice.
# With digits and exponents made alike, plain search finds them: a regular expression takes ten times longer.
_ALIKE = bytes.maketrans(b"123456789E", b"000000000e")
_LONG = b"0" * 200


class Encoded(bytes):
    """A payload that `encode` has written before, and now leaves as it is."""

    __slots__ = ()


def encode(value: object, *, limit: int) -> bytes:
    """Write `value` (dicts, lists, pydantic models, dataclasses, datetimes, UUIDs, Decimals, …) as JSON.

    Raises:
        EncodeError: JSON has no form for it: an unknown type, NaN or infinity, a cycle, bytes not UTF-8.
        MessageTooLarge: it takes more than `limit` bytes.
    """
    try:
        body = bytes(value) if isinstance(value, Encoded) else pydantic_core.to_json(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise EncodeError(f"cannot be written as JSON: {error}") from None
    if len(body) > limit:
        raise MessageTooLarge(f"the body takes {len(body)} bytes; the limit is {limit} (max_body_bytes)")
    # What pydantic_core writes for a float that JSON does not have; in a string it does no harm.
    if may_hold_non_finite(body):
        try:
            pydantic_core.from_json(body, allow_inf_nan=False)
        except ValueError:
            raise EncodeError("cannot be written as JSON: NaN and infinity have no form in it") from None
    return body


def decode(body: bytes) -> object:
    """Read a body.

    Raises:
        DecodeError: it is no JSON in the sense of this module.
    """
    try:
        value: object = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise DecodeError(str(error)) from None
    rejects_non_finite(body)
    return value


def may_hold_non_finite(body: bytes) -> bool:
    """Whether one of the words for a number that JSON does not have is in it, in a string or not."""
    # ``in`` tries its left side as a number first, and takes five times as long.
    return body.find(b"NaN") >= 0 or body.find(b"Infinity") >= 0


def rejects_non_finite(body: bytes) -> None:
    """Raise `DecodeError` if a number of a valid JSON `body` is too large for a float."""
    find = body.translate(_ALIKE).find
    if find(b"0e000") >= 0 or find(b"0e+000") >= 0 or find(_LONG) >= 0:
        standard.loads(body, parse_float=_finite, parse_int=str)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise DecodeError(f"the number {number[:40]} is too large for a float")
    return value
