"""Dead letters: what RabbitMQ writes on a message that it moves to a dead-letter exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, cast

from autosell_rmq.message import Headers, Publication, aware

type Reason = Literal["expired", "maxlen", "delivery_limit"]


def dead_letter(
    publication: Publication,
    *,
    queue: str,
    reason: Reason,
    now: float,
    exchange: str,
    routing_key: str | None,
) -> Publication:
    """The copy that goes to the `exchange`, under its own routing key where there is no other."""
    headers = dict(publication.properties.headers)
    died_here = (queue, reason)
    others = [death for death in _deaths(headers) if _place(death) != died_here]
    before = next((death for death in _deaths(headers) if _place(death) == died_here), None)
    if before is not None:
        count = before.get("count")
        death = {**before, "count": count + 1 if isinstance(count, int) else 1}
    else:
        moment = aware(now)
        death = {
            "count": 1,
            "reason": reason,
            "queue": queue,
            "time": moment.replace(microsecond=0) if moment else None,
            "exchange": publication.exchange,
            "routing-keys": [publication.routing_key],
        }
        if publication.properties.expiration is not None:
            death["original-expiration"] = str(round(publication.properties.expiration * 1000))
    headers["x-death"] = [death, *others]
    first = {"reason": reason, "queue": queue, "exchange": publication.exchange}
    for name, value in first.items():
        headers.setdefault(f"x-first-death-{name}", value)
    return replace(
        publication,
        exchange=exchange,
        routing_key=publication.routing_key if routing_key is None else routing_key,
        # Or it would expire again where it goes to.
        properties=replace(publication.properties, headers=headers, expiration=None),
    )


def goes_in_circles(headers: Headers, queue: str) -> bool:
    """Whether a dead letter comes back to `queue` with nobody having rejected it since: it is dropped."""
    deaths = _deaths(headers)
    for at, death in enumerate(deaths):
        if death.get("queue") == queue:
            return all(since.get("reason") != "rejected" for since in deaths[: at + 1])
    return False


def _deaths(headers: Headers) -> list[Headers]:
    deaths = headers.get("x-death")
    if not isinstance(deaths, list):
        return []
    # Anybody may have written that header.
    return [cast("Headers", death) for death in cast("list[object]", deaths) if isinstance(death, Mapping)]


def _place(death: Headers) -> tuple[object, object]:
    return death.get("queue"), death.get("reason")
