"""Reads nested dictionaries of settings: every problem is collected with its place, none is raised."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

# Says what was expected of a value that does not fit; None of one that does.
type Check = Callable[[object], str | None]

_SHOWN = 80  # characters of a wrong value
_LOGIN = re.compile(r"://[^\s'\"]*@")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in the setting: which kind, where, what, and what to do."""

    id: str
    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class Section:
    """One dictionary; keys that nobody takes are unknown ones.

    Args:
        value: what should be a dictionary.
        where: its place, ``AUTOSELL_RMQ["QUEUES"]``.
        problems: gets what is wrong.
    """

    def __init__(self, value: object, where: str, problems: list[Problem]) -> None:
        self.where = where
        self._problems = problems
        self._known: set[str] = set()
        self._values: Mapping[object, object] = {}
        if isinstance(value, Mapping):
            self._values = value
        else:
            self.report("autosell_rmq.E001", f"is {shown(value)}: expected a dictionary")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    @property
    def keys(self) -> list[str]:
        """The keys; any that is no string is reported."""
        for key in self._values:
            if not isinstance(key, str):
                self.report("autosell_rmq.E002", f"has the key {shown(key)}: expected a string")
        return [key for key in self._values if isinstance(key, str)]

    def take[T](self, key: str, check: Check, default: T) -> T:
        """The value of `key` if it passes the `check`, which knows what a T is; else `default`."""
        self._known.add(key)
        if key not in self._values:
            return default
        value = self._values[key]
        expected = check(value)
        if expected is not None:
            self.report("autosell_rmq.E003", f"is {shown(value)}: expected {expected}", at=key)
            return default
        return value  # type: ignore[return-value]

    def section(self, key: str) -> Section:
        """A dictionary inside; an empty one where there is none."""
        self._known.add(key)
        return Section(self._values.get(key, {}), self.place(key), self._problems)

    def finish(self, known: Collection[str] = ()) -> None:
        """Report the keys that were not taken and are not `known`."""
        known = self._known.union(known)
        for key in self.keys:
            if key not in known:
                self.report("autosell_rmq.E002", "is not a setting", at=key, hint=_meant(key, known))

    def place(self, key: str) -> str:
        """``AUTOSELL_RMQ["PREFETCH"]``."""
        return f'{self.where}["{key}"]'

    def report(self, id: str, what: str, *, at: str | None = None, hint: str = "") -> None:
        """Add a problem, with this dictionary or with one key of it."""
        self._problems.append(Problem(id, self.where if at is None else self.place(at), what, hint))


def _meant(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key.upper(), known, n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else f"known are {', '.join(sorted(known))}"


def shown(value: object) -> str:
    """A value in a problem's text; what stands before the host in a URL may be a password."""
    text = _LOGIN.sub("://***@", repr(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


# --- the checks ----------------------------------------------------------------------------------


def flag(value: object) -> str | None:
    """True or False."""
    return None if isinstance(value, bool) else "True or False"


def whole(value: object) -> str | None:
    """A whole number, also below zero."""
    return None if isinstance(value, int) and not isinstance(value, bool) else "a whole number"


def count(value: object) -> str | None:
    """A whole number of something there must be."""
    return None if whole(value) is None and value >= 1 else "a whole number >= 1"  # type: ignore[operator]


def seconds(value: object) -> str | None:
    """A time that passes."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return None if number and value > 0 else "a number of seconds > 0"  # type: ignore[operator]


def text(value: object) -> str | None:
    """A string with something in it."""
    return None if isinstance(value, str) and value else "a non-empty string"


def dotted_path(value: object) -> str | None:
    """The form of ``package.module.name``; whether it can be imported is another question."""
    parts = value.split(".") if isinstance(value, str) else []
    fits = len(parts) > 1 and all(part.isidentifier() for part in parts)
    return None if fits else 'a dotted path such as "shop.messaging.redact"'


def names(value: object) -> str | None:
    """A dictionary whose keys are strings."""
    fits = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    return None if fits else "a dictionary with strings as keys"


def listed(value: object) -> str | None:
    """A list, whatever is in it."""
    return None if isinstance(value, list | tuple) else "a list"


def optional(check: Check) -> Check:
    """The same, or None."""

    def either(value: object) -> str | None:
        expected = None if value is None else check(value)
        return expected and f"{expected}, or None"

    return either
