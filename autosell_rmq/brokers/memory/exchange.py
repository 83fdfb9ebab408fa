"""Which queues an exchange sends a message to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from autosell_rmq.message import NO_HEADERS, Headers

type _Matches = Callable[["Binding", str, Headers], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A queue's wish to get what matches."""

    queue: str
    routing_key: str
    arguments: Headers = field(hash=False)


class MemoryExchange:
    """A named exchange and its bindings."""

    def __init__(self, name: str, type_: str, arguments: Headers = NO_HEADERS) -> None:
        self.name = name
        self.type = type_
        self.arguments = arguments
        self.bindings: list[Binding] = []

    def bind(self, binding: Binding) -> None:
        """Idempotent."""
        if binding not in self.bindings:
            self.bindings.append(binding)

    def unbind(self, queue: str) -> None:
        """Forget every binding of a queue."""
        self.bindings = [binding for binding in self.bindings if binding.queue != queue]

    def route(self, routing_key: str, headers: Headers) -> list[str]:
        """The names of the queues, each once however many of its bindings match."""
        matches = TYPES[self.type]
        return list(
            dict.fromkeys(
                binding.queue for binding in self.bindings if matches(binding, routing_key, headers)
            )
        )


def _direct(binding: Binding, routing_key: str, _: Headers) -> bool:
    return binding.routing_key == routing_key


def _fanout(_binding: Binding, _routing_key: str, _: Headers) -> bool:
    return True


def _topic(binding: Binding, routing_key: str, _: Headers) -> bool:
    return _words_match(_words(binding.routing_key), _words(routing_key))


def _words(key: str) -> list[str]:
    return key.split(".") if key else []  # as RabbitMQ: an empty key has no word, "a." has two


def _words_match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return _words_match(rest, words) or (bool(words) and _words_match(pattern, words[1:]))
    return bool(words) and first in ("*", words[0]) and _words_match(rest, words[1:])


def _headers(binding: Binding, _: str, headers: Headers) -> bool:
    how = str(binding.arguments.get("x-match", "all"))
    wanted = {
        name: value
        for name, value in binding.arguments.items()
        if name != "x-match" and (how.endswith("-with-x") or not name.startswith("x-"))
    }
    # A wanted header without a value only has to be there.
    found = [
        name in headers and (value is None or _equal(value, headers[name])) for name, value in wanted.items()
    ]
    return any(found) if how.startswith("any") else all(found)


def _equal(wanted: object, value: object) -> bool:
    if isinstance(wanted, bytes):
        wanted = wanted.decode("utf-8", "replace")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return isinstance(wanted, bool) == isinstance(value, bool) and wanted == value


TYPES: dict[str, _Matches] = {"direct": _direct, "fanout": _fanout, "topic": _topic, "headers": _headers}
