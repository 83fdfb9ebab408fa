"""Making the records of a message: a few for each, so that each microsecond counts."""

from __future__ import annotations

from typing import Any


def made[Record](record: type[Record], fields: dict[str, Any]) -> Record:
    """Make a frozen dataclass without slots from fields that are known to be right; it keeps the dict.

    Its ``__init__`` sets one field after the other, past its own lock, and takes five times as long. A field
    that is left out has its default, which is an attribute of the class.
    """
    instance = object.__new__(record)
    object.__setattr__(instance, "__dict__", fields)
    return instance
