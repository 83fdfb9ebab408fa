"""Bytes on the wire: JSON payloads, replies and the dead letter's envelope."""

from autosell_rmq.codec.dead_letter import DeadLetterReason, Envelope, envelope, restore
from autosell_rmq.codec.json import Encoded, decode, encode, may_hold_non_finite, rejects_non_finite
from autosell_rmq.codec.reply import error_reply, parse_reply, success_reply

__all__ = [
    "DeadLetterReason",
    "Encoded",
    "Envelope",
    "decode",
    "encode",
    "envelope",
    "error_reply",
    "may_hold_non_finite",
    "parse_reply",
    "rejects_non_finite",
    "restore",
    "success_reply",
]
