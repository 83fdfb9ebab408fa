"""What to do about a queue or an exchange that exists with other arguments: which setting mends it."""

from __future__ import annotations

import json
import re

from autosell_rmq.config import of_delay_line

# "inequivalent arg 'x-max-length' for queue 'orders' in vhost '/': received '10' but current is '11'"; what
# is not there at all is "none", and next to it a value is "the value '10' of type 'byte'".
_DIFFERENCE = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?P<kind>queue|exchange) .*: received "
    r"(?:(?P<unwanted>none)|.*) but current is (?:none|(?:the value )?'(?P<current>[^']*)')",
    re.DOTALL,
)
_OPTIONS = {  # with what they are where the queue has none
    "x-max-priority": ("max_priority", "None"),
    "x-single-active-consumer": ("single_active_consumer", "False"),
}
# What our quorum queues have and our classic ones have not: the broker compares these before the type.
_OF_QUORUM = {"x-dead-letter-strategy", "x-delivery-limit", "x-overflow"}
_WHATEVER = (
    "take it as it stands with declare=False, or delete it once it is empty and let it be declared anew"
)


def mismatch(name: str, text: str) -> str:
    """One line for what the broker said in `text` to the declaration of `name`."""
    if "invalid property" in text or "invalid arg" in text:
        return f"RabbitMQ cannot declare {name!r} with these arguments: {text}"
    if of_delay_line(name):
        return f"{name!r} was made by an earlier version: {text}. Delete it once it has run empty"
    return f"{name!r} exists with other arguments: {text}. Either {_remedy(text)}"


def _remedy(text: str) -> str:
    difference = _DIFFERENCE.search(text)
    if difference is None:
        return _WHATEVER
    argument, current = difference["argument"], difference["current"]
    if difference["kind"] == "exchange":
        how = f'exchange_type="{current}"' if argument == "type" else "its own settings"
        return f"declare it as it is with {how}, or delete it and let it be declared anew"
    setting = _setting(argument, current, unwanted=difference["unwanted"] is not None)
    return f"declare it as it is with {setting} on its handler, or {_WHATEVER}" if setting else _WHATEVER


def _setting(argument: str, current: str | None, *, unwanted: bool) -> str | None:
    """The option of a handler that declares the `current` value; None where there is no such option."""
    if argument == "x-queue-type":
        return f'queue_type="{current or "classic"}"'  # a queue without it is classic
    if argument in _OF_QUORUM and current is None:
        return 'queue_type="classic"'
    if argument in _OF_QUORUM and unwanted and argument != "x-overflow":
        return 'queue_type="quorum"'
    if argument in _OPTIONS and current != "false":
        option, without = _OPTIONS[argument]
        return f"{option}={without if current is None else _value(current)}"
    if argument.startswith("x-") and current is not None:
        return f"arguments={{{json.dumps(argument)}: {_value(current)}}}"
    return None  # nothing takes an argument of ours away, nor makes our queues anything but durable


def _value(said: str) -> str:
    """What the broker printed, as Python writes it."""
    if said in ("true", "false"):
        return said.capitalize()
    return said if re.fullmatch(r"-?\d+", said) else json.dumps(said)
