"""What is measured: which client does which work, with which options; and how cost grows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from benchmarks.clients import (
    AIO_PIKA,
    CELERY,
    DJANGO,
    DRAMATIQ,
    FASTSTREAM,
    JSON_RPC,
    LIMIT,
    OURS,
    PIKA,
    TASKIQ,
    Client,
)

type Axis = Literal["size", "prefetch", "depth", "queues"]
type Kind = Literal["classic", "quorum"]


@dataclass(frozen=True, slots=True)
class Case:
    """One row: a client, and how it does the work of its group.

    Attributes:
        note: what the table says beside the client's name.
        late: the messages come when the consumers are there: to subscribe to many queues is not measured.
        needs: a handler option of ours without which the row is skipped, by name.
    """

    client: Client
    note: str = ""
    kind: Kind = "classic"
    loop: Literal["asyncio", "uvloop"] = "asyncio"
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    prefetch: int = 500
    window: int = 256
    depth: int = 0
    queues: int = 1
    late: bool = False
    needs: str = ""

    @property
    def title(self) -> str:
        """The client with what is special about the row."""
        loop = "uvloop" if self.loop == "uvloop" else ""
        return ", ".join(filter(None, (self.client.name, self.note, loop)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A group of rows that do the same: they take turns in every round."""

    key: str
    title: str
    work: str
    n: int
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How the cost of consuming or publishing grows along one axis."""

    key: str
    title: str
    axis: Axis
    work: str
    n: int
    points: Sequence[int]
    clients: tuple[Client, ...]

    def cases(self) -> Iterator[tuple[int, Case]]:
        """Each client at each point."""
        for point in self.points:
            for client in self.clients:
                yield point, _at(Case(client), self.axis, point)


def _at(case: Case, axis: Axis, point: int) -> Case:
    match axis:
        case "size":
            return replace(case, size=point)
        case "prefetch":
            return replace(case, prefetch=point)
        case "depth":
            return replace(case, depth=point)
        case "queues":
            return replace(case, queues=point, late=True)


def _consume(full: bool) -> Work:
    head = (Case(OURS), Case(AIO_PIKA), Case(FASTSTREAM), Case(LIMIT), Case(OURS, loop="uvloop"))
    further = (
        Case(OURS, "no idempotency", options={"store": "none"}),
        Case(OURS, "typed payload", options={"typed": True}),
        Case(OURS, "quorum", kind="quorum", options={"queue_type": "quorum"}),
        Case(OURS, "Redis", options={"store": "redis"}),
        Case(AIO_PIKA, loop="uvloop"),
        Case(AIO_PIKA, "quorum", kind="quorum"),
        Case(FASTSTREAM, loop="uvloop"),
        Case(FASTSTREAM, "quorum", kind="quorum"),
        Case(TASKIQ),
        Case(CELERY),
        Case(DRAMATIQ),
        Case(PIKA),
    )
    return Work(
        key="consume",
        title="Consume and ack: prefetch 500, an async handler that does nothing",
        work="consume",
        n=10_000 if full else 6_000,
        cases=head + further if full else head,
    )


def _publish(full: bool) -> Work:
    head = (Case(OURS), Case(AIO_PIKA), Case(FASTSTREAM), Case(LIMIT), Case(OURS, loop="uvloop"))
    further = (
        Case(OURS, "send_many", options={"many": True}),
        Case(OURS, "quorum", kind="quorum"),
        Case(AIO_PIKA, loop="uvloop"),
        Case(FASTSTREAM, loop="uvloop"),
        Case(TASKIQ),
        Case(CELERY, "one at a time"),
        Case(DRAMATIQ, "one at a time"),
        Case(PIKA, "one at a time"),
    )
    return Work(
        key="publish",
        title="Publish: 256 in flight, each confirmed",
        work="publish",
        n=10_000 if full else 6_000,
        cases=head + further if full else head,
    )


def _rpc(full: bool) -> Work:
    head = tuple(Case(client, window=100) for client in (OURS, FASTSTREAM, LIMIT))
    further = (
        Case(OURS, window=100, loop="uvloop"),
        Case(OURS, "quorum", window=100, kind="quorum", options={"queue_type": "quorum"}),
        Case(JSON_RPC, window=100),
        Case(FASTSTREAM, window=100, loop="uvloop"),
        Case(CELERY, window=100),
    )
    return Work(
        key="rpc",
        title="Requests: 100 in flight; CPU of the client and of the server",
        work="request",
        n=4_000 if full else 2_000,
        cases=head + further if full else head,
    )


def _rpc_sequential(full: bool) -> Work:
    head = (Case(OURS, window=1), Case(JSON_RPC, window=1))
    further = (
        Case(OURS, window=1, loop="uvloop"),
        Case(FASTSTREAM, window=1),
        Case(CELERY, window=1),
        Case(PIKA, window=1),
        Case(LIMIT, window=1),
    )
    return Work(
        key="rpc_sequential",
        title="Requests: one after the other",
        work="request",
        n=600 if full else 300,
        cases=head + further if full else head,
    )


def _store(full: bool) -> Work:
    head = (
        Case(DJANGO, "lease mode", window=50, options={"only": "store"}),
        Case(DJANGO, "a claim and a completion each by itself", window=50, options={"only": "alone"}),
    )
    return Work(
        key="django_store",
        title="Django's store in lease mode, on PostgreSQL: 50 in flight, without a broker",
        work="store",
        n=8_000 if full else 4_000,
        cases=head,
    )


def _exactly_once(full: bool) -> Work:
    cases = (
        Case(DJANGO, "batch=50", options={"threads": 1, "batch": 50}, needs="batch"),
        Case(DJANGO, "batch=1, one thread", options={"threads": 1}),
        Case(DJANGO, "batch=1, 8 threads", options={"threads": 8}),
    )
    return Work(
        key="exactly_once",
        title="Exactly-once handler (one INSERT), Django on PostgreSQL",
        work="consume_sync",
        n=4_000 if full else 2_000,
        cases=cases,
    )


def _django_consume(full: bool) -> Work:
    return Work(
        key="django_consume",
        title="Consume and ack with Django's store in lease mode, on PostgreSQL: prefetch 50",
        work="consume",
        n=4_000,
        cases=(Case(DJANGO, "lease mode", prefetch=50),),
    )


def _idle(full: bool) -> Work:
    clients = (OURS, FASTSTREAM, AIO_PIKA, TASKIQ, CELERY, DRAMATIQ, PIKA, LIMIT)
    return Work(
        key="memory",
        title="Resident memory of a worker whose handler does nothing, at its highest",
        work="consume",
        n=500,
        cases=tuple(Case(client) for client in (clients if full else clients[:2])),
    )


def works(*, full: bool) -> list[Work]:
    """The rows of the tables."""
    makers = [_consume, _publish, _rpc, _rpc_sequential, _store, _exactly_once, _idle]
    if full:
        makers.insert(-1, _django_consume)
    return [make(full) for make in makers]


def growths() -> list[Growth]:
    """The curves; only the full run has them."""
    fast = (OURS, AIO_PIKA, FASTSTREAM, LIMIT)
    return [
        Growth(
            key="size",
            title="Consume: cost by size of the body, in bytes",
            axis="size",
            work="consume",
            n=3_000,
            points=(100, 1_000, 10_000, 100_000, 1_000_000),
            clients=fast,
        ),
        Growth(
            key="publish_size",
            title="Publish: cost by size of the body, in bytes",
            axis="size",
            work="publish",
            n=3_000,
            points=(100, 1_000, 10_000, 100_000, 1_000_000),
            clients=fast,
        ),
        Growth(
            key="prefetch",
            title="Consume: cost by prefetch",
            axis="prefetch",
            work="consume",
            n=6_000,
            points=(1, 10, 100, 500, 1_000),
            clients=fast,
        ),
        Growth(
            key="depth",
            title="Consume: cost by messages that wait in the queue",
            axis="depth",
            work="consume",
            n=6_000,
            points=(10_000, 100_000, 1_000_000),
            clients=(OURS, AIO_PIKA, FASTSTREAM),
        ),
        Growth(
            key="queues",
            title="Consume: cost by queues of one worker",
            axis="queues",
            work="consume",
            n=6_000,
            points=(1, 10, 50, 200),
            clients=(OURS, AIO_PIKA, FASTSTREAM),
        ),
    ]
