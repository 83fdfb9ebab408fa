"""The checks that settings share: each raises one line that names the setting and the value."""

from __future__ import annotations

import math
import re

from autosell_rmq.exceptions import ConfigError

_MAX_NAME = 255  # bytes; a short string of AMQP 0-9-1
_DECLARABLE = re.compile(r"[a-zA-Z0-9\-_.:@#,/+ ]+")  # as pamqp has it


def whole(name: str, value: object, *, least: int = 0, most: int | None = None) -> None:
    """Refuse what is not an int from `least` to `most`."""
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < least
        or (most is not None and value > most)
    ):
        limit = f"from {least} to {most}" if most is not None else f">= {least}"
        raise ConfigError(f"{name}={value!r}: expected a whole number {limit}")


def seconds(name: str, value: object, *, above: float = 0.0) -> None:
    """Refuse what is not a finite number of seconds over `above`."""
    if not _is_finite(value) or not value > above:  # type: ignore[operator]
        raise ConfigError(f"{name}={value!r}: expected a number of seconds > {above:g}")


def patience(name: str, value: object) -> None:
    """Refuse what is not a finite number of seconds, 0 included."""
    if not _is_finite(value) or not value >= 0:  # type: ignore[operator]
        raise ConfigError(f"{name}={value!r}: expected a number of seconds >= 0")


def entity_name(name: str, value: object) -> None:
    """Refuse what RabbitMQ cannot take as the name of a queue or an exchange."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name}={value!r}: expected a non-empty string")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"{name}={value!r}: not valid Unicode") from None
    if size > _MAX_NAME:
        raise ConfigError(f"{name}: {size} bytes long, RabbitMQ takes names of up to {_MAX_NAME} bytes")


def declared_name(name: str, value: object, *, most: int = _MAX_NAME) -> None:
    """Refuse what the client library cannot declare as a queue or an exchange."""
    entity_name(name, value)
    if not _DECLARABLE.fullmatch(str(value)) or len(str(value)) > most:
        raise ConfigError(
            f"{name}={value!r}: expected up to {most} of the characters A-Z a-z 0-9 -_.:@#,/+ and space"
        )


def flag(name: str, value: object) -> None:
    """Refuse what is not True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r}: expected True or False")


def names(name: str, value: object) -> None:
    """Refuse what is not a list or a tuple of non-empty strings."""
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) and one for one in value):
        raise ConfigError(f"{name}={value!r}: expected a list of non-empty strings")


def one_of(name: str, value: object, *allowed: object) -> None:
    """Refuse what is not among `allowed`."""
    if value not in allowed:
        raise ConfigError(f"{name}={value!r}: expected one of {', '.join(map(repr, allowed))}")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
