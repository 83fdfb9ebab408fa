"""Which queues and exchanges there are, as data: work queues, their DLQs, events, the delay line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from autosell_rmq.config import DELAY_LINE, HOME, HOMELESS, HandlerOptions
from autosell_rmq.message import NO_HEADERS, Headers

# Past this many deliveries RabbitMQ itself dead-letters a message, raw: the net below our own count of 20.
BROKER_DELIVERY_LIMIT = 50

# RabbitMQ 4 gives every quorum queue a limit of 20, and a message without a home is looked at at each start.
NO_DELIVERY_LIMIT = 2**31 - 1

# 2**22 seconds are 48 days; a longer delay takes several hops.
LONGEST_HOP = 2**22
# A message this close to its due time is due: less than the jitter of a broker's TTL.
DUE_TOLERANCE = 0.05  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A durable queue. `passive` only checks that it is there, whatever its arguments."""

    name: str
    arguments: Headers = field(default=NO_HEADERS, hash=False)
    passive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: str = "topic"
    arguments: Headers = field(default=NO_HEADERS, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueBinding:
    """What an exchange sends to a queue."""

    queue: str
    exchange: str
    routing_key: str = ""
    arguments: Headers = field(default=NO_HEADERS, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What must exist; declared in the order exchanges, queues, bindings."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[QueueBinding, ...] = ()

    def __add__(self, other: Topology) -> Topology:
        return Topology(
            exchanges=tuple(dict.fromkeys(self.exchanges + other.exchanges)),
            queues=tuple(dict.fromkeys(self.queues + other.queues)),
            bindings=tuple(dict.fromkeys(self.bindings + other.bindings)),
        )


def of_handler(options: HandlerOptions) -> Topology:
    """The work queue, its DLQ, its events, the hops that its retries take, and their way home."""
    if not options.declare:
        queues = (Queue(name=options.dlq, passive=True), Queue(name=options.queue, passive=True))
    else:
        queues = (
            Queue(name=options.dlq, arguments={"x-queue-type": options.queue_type}),
            Queue(name=options.queue, arguments=_work_queue_arguments(options)),
        )
    own = Topology(
        exchanges=tuple(Exchange(name=b.exchange, type=b.exchange_type) for b in options.bind),
        queues=queues,
        bindings=tuple(
            QueueBinding(
                queue=options.queue, exchange=b.exchange, routing_key=b.routing_key, arguments=b.arguments
            )
            for b in options.bind
        ),
    )
    if options.max_retries:
        own += END_OF_LINE + way_home(options.queue)
    hop = 1
    while options.max_retries and hop <= max(options.max_retry_delay, 1.0):
        own += delay_hop(hop)
        hop *= 2
    return own


def _work_queue_arguments(options: HandlerOptions) -> dict[str, object]:
    arguments: dict[str, object] = {
        "x-queue-type": options.queue_type,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": options.dlq,
    }
    if options.queue_type == "quorum":
        arguments |= {
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": BROKER_DELIVERY_LIMIT,
        }
    if options.max_priority is not None:
        arguments["x-max-priority"] = options.max_priority
    if options.single_active_consumer:
        arguments["x-single-active-consumer"] = True
    return arguments | dict(options.arguments)


def delay_name(hop: int) -> str:
    """The queue, and the exchange in front of it, in which a message waits `hop` seconds."""
    return f"{DELAY_LINE}{hop}s"


def is_delay_name(name: str) -> bool:
    """Whether a queue belongs to the delay line."""
    return name.startswith(DELAY_LINE)


def delay_hop(hop: int) -> Topology:
    """One hop of the delay line.

    The TTL is on the queue, so messages expire in the order in which they came; they go home under the
    routing key that they came with: the name of the handler's queue.
    """
    name = delay_name(hop)
    return END_OF_LINE + Topology(
        exchanges=(Exchange(name=name, type="fanout"),),
        queues=(
            Queue(
                name=name,
                arguments={
                    "x-queue-type": "quorum",
                    "x-message-ttl": hop * 1000,
                    "x-dead-letter-exchange": HOME,
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                },
            ),
        ),
        bindings=(QueueBinding(queue=name, exchange=name),),
    )


def way_home(queue: str) -> Topology:
    """What brings a queue's messages home from the delay line; the queue itself must be there."""
    return Topology(bindings=(QueueBinding(queue=queue, exchange=HOME, routing_key=queue),))


# Where all hops lead. The default exchange would do, were it not for messages whose queue is gone: RabbitMQ
# keeps trying, and with 32 of them a hop stands still. From here they are routed like any other, to a queue
# in which they wait for their home. That has one consumer at a time, so that two apps which look through it
# do not hide messages from each other; RabbitMQ takes no notice of an exclusive consumer on a quorum queue.
END_OF_LINE = Topology(
    exchanges=(
        Exchange(name=HOMELESS, type="fanout"),
        Exchange(name=HOME, type="direct", arguments={"alternate-exchange": HOMELESS}),
    ),
    queues=(
        Queue(
            name=HOMELESS,
            arguments={
                "x-queue-type": "quorum",
                "x-single-active-consumer": True,
                "x-delivery-limit": NO_DELIVERY_LIMIT,
                "x-overflow": "reject-publish",
            },
        ),
    ),
    bindings=(QueueBinding(queue=HOMELESS, exchange=HOMELESS),),
)


def next_hop(remaining: float) -> int:
    """How many seconds to wait next of the `remaining` ones: a power of two.

    The largest that does not overshoot, but never below a second; so a message is handled never
    before its due time and less than a second after it.
    """
    if remaining <= 1:
        return 1
    if remaining < 2:
        return 2 if remaining > 1 + DUE_TOLERANCE else 1
    return int(min(2 ** math.floor(math.log2(remaining + DUE_TOLERANCE)), LONGEST_HOP))
