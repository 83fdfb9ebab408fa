"""How a queue's messages are handled, as a list of facts."""

from __future__ import annotations

from autosell_rmq_fastapi.docs.constraints import as_json
from autosell_rmq_fastapi.docs.markup import Markup, joined, tag
from autosell_rmq_fastapi.docs.reading import EXTENSION, Operation


def handling(operation: Operation) -> Markup:
    """A definition list of the options of a handler and of its queue."""
    said = operation.extension
    facts: dict[str, str] = {
        "Handler": tag("code", said["handler"]),
        "At once": f"{said['prefetch']} messages" if said["prefetch"] > 1 else "1 message",
        "Time for one attempt": duration(said["timeout"]),
        "Retries": _retries(said["max_retries"], said["retry_delay"], said["max_retry_delay"]),
        "Dead letters": tag("a", tag("code", said["dead_letter_queue"]), href="#dead-letters"),
        "Same message twice": _duplicates(said["idempotency_key"], said["on_conflict"]),
    }
    if said.get("single_active_consumer"):
        facts["Consumers"] = "one at a time"
    if said.get("max_priority"):
        facts["Priorities"] = f"0 to {said['max_priority']}"
    if said.get("consumer_priority"):
        facts["Consumer priority"] = str(said["consumer_priority"])
    arguments = operation.channel.get(EXTENSION, {}).get("arguments", {})
    if arguments:
        facts["Queue arguments"] = joined(
            *(tag("div", tag("code", f"{name}: {as_json(value)}")) for name, value in arguments.items())
        )
    return tag("dl", *(joined(tag("dt", name), tag("dd", fact)) for name, fact in facts.items()))


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _retries(count: int, first: float, longest: float) -> str:
    if not count:
        return "none"
    waits = f"{duration(first)}, doubling up to {duration(longest)}" if longest > first else duration(first)
    return f"{count}, after {waits}"


def _duplicates(key: str | None, on_conflict: str) -> Markup:
    if key is None:
        return joined("is handled twice")
    other = "is refused with another body" if on_conflict == "reject" else "also with another body"
    return joined("gets the first reply, ", other, "; known by ", tag("code", key))
