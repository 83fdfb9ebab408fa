"""What can be said per handler: its queue, its retries, its bindings, its idempotency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict, Unpack

from autosell_rmq.config.check import declared_name, entity_name, flag, one_of, seconds, whole
from autosell_rmq.config.settings import Settings
from autosell_rmq.exceptions import ConfigError
from autosell_rmq.message import NO_HEADERS, Headers, Message

DELAY_LINE = "autosell.delay."  # how the names of the delay line's queues begin
HOME = "autosell.home"  # the exchange by which they bring messages home
HOMELESS = "autosell.homeless"  # the queue of those whose home is gone, and the exchange in front of it

type Effect = Literal["exactly_once", "lease"]
type IdempotencyKey = Literal["correlation_id", "message_id"] | Callable[[Message], str | None] | None


@dataclass(frozen=True, slots=True)
class Binding:
    """Events of an exchange that come to a handler's queue: ``Binding("events", "order.*")``."""

    exchange: str
    routing_key: str = "#"
    exchange_type: Literal["topic", "direct", "fanout", "headers"] = "topic"
    arguments: Headers = field(default=NO_HEADERS, hash=False)

    def __post_init__(self) -> None:
        declared_name("Binding(exchange)", self.exchange, most=127)
        if of_delay_line(self.exchange):
            raise ConfigError(f"Binding(exchange)={self.exchange!r}: it belongs to the delay line")
        if self.routing_key != "":
            entity_name("Binding(routing_key)", self.routing_key)
        one_of("Binding(exchange_type)", self.exchange_type, "topic", "direct", "fanout", "headers")


class QueueKwargs(TypedDict, total=False):
    """The options that only a handler has; `HandlerOptions` says what each means."""

    timeout: float
    bind: Binding | Sequence[Binding]
    declare: bool
    max_priority: int
    single_active_consumer: bool
    consumer_priority: int
    arguments: Mapping[str, Any]
    idempotency_key: IdempotencyKey
    on_conflict: Literal["first_result", "reject"]
    effect: Effect
    batch: int
    accept_replies: bool


class HandlerKwargs(QueueKwargs, total=False):
    """The keyword options of ``@rmq.handler(queue, …)``; those below override the app's `Settings`."""

    dlq: str
    max_retries: int
    prefetch: int
    retry_delay: float
    max_retry_delay: float
    queue_type: Literal["quorum", "classic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerOptions:
    """One handler's options, complete.

    Attributes:
        queue: the queue it consumes.
        dlq: where its dead letters go; by default ``<queue>_dlq``.
        timeout: seconds that one run may take.
        bind: events that come to the queue.
        declare: False takes the queue and its DLQ as they stand, whatever their arguments.
        max_priority: declares a priority queue; on quorum queues RabbitMQ can since 4.3.
        consumer_priority: the broker prefers the consumers with the higher one.
        arguments: further queue arguments (``x-…``), which win over ours.
        idempotency_key: which id makes two messages duplicates: by default the correlation id, with
            `bind` the message id; either falls back on the other. A callable makes its own; None is off.
        on_conflict: what an id gets that was used before with another body.
        effect: ``"lease"`` keeps a sync handler out of the transaction of a store that has one: for a
            handler that calls other services. ``"exactly_once"`` insists on that transaction.
        batch: up to so many messages share one such transaction; see the store's documentation.
        accept_replies: also handle messages of type ``reply``, which are refused otherwise.
    """

    queue: str
    dlq: str
    max_retries: int
    prefetch: int
    timeout: float
    retry_delay: float
    max_retry_delay: float
    queue_type: Literal["quorum", "classic"]
    bind: tuple[Binding, ...] = ()
    declare: bool = True
    max_priority: int | None = None
    single_active_consumer: bool = False
    consumer_priority: int | None = None
    arguments: Headers = field(default=NO_HEADERS, hash=False)
    idempotency_key: IdempotencyKey = "correlation_id"
    on_conflict: Literal["first_result", "reject"] = "first_result"
    effect: Effect | None = None
    batch: int = 1
    accept_replies: bool = False

    def __post_init__(self) -> None:
        self._check_names()
        self._check_numbers()
        for name in ("declare", "single_active_consumer", "accept_replies"):
            flag(name, getattr(self, name))
        one_of("queue_type", self.queue_type, "quorum", "classic")
        one_of("on_conflict", self.on_conflict, "first_result", "reject")
        one_of("effect", self.effect, None, "exactly_once", "lease")
        if not (self.idempotency_key is None or callable(self.idempotency_key)):
            one_of("idempotency_key", self.idempotency_key, "correlation_id", "message_id")
        if self.batch > 1 and (self.effect == "lease" or self.idempotency_key is None):
            without = 'effect="lease"' if self.effect == "lease" else "idempotency_key=None"
            raise ConfigError(f"batch={self.batch}: there is no transaction to share with {without}")
        for binding in self.bind:
            if not isinstance(binding, Binding):
                raise ConfigError(f"bind={binding!r}: expected Binding(exchange, routing_key)")

    def _check_names(self) -> None:
        declared_name("queue", self.queue)
        declared_name("dlq", self.dlq)
        if self.queue == self.dlq:
            raise ConfigError(f"queue and dlq are both {self.queue!r}: a dead letter needs its own")
        for option, name in (("queue", self.queue), ("dlq", self.dlq)):
            if of_delay_line(name):
                raise ConfigError(f"{option}={name!r}: it belongs to the delay line")

    def _check_numbers(self) -> None:
        whole("max_retries", self.max_retries)
        whole("prefetch", self.prefetch, least=1, most=65_535)
        whole("batch", self.batch, least=1, most=1000)
        for name in ("timeout", "retry_delay", "max_retry_delay"):
            seconds(name, getattr(self, name))
        if self.retry_delay > self.max_retry_delay:
            raise ConfigError(
                f"retry_delay={self.retry_delay:g} is over max_retry_delay={self.max_retry_delay:g}"
            )
        if self.max_priority is not None:
            whole("max_priority", self.max_priority, least=1, most=255)
        if self.consumer_priority is not None:
            whole("consumer_priority", self.consumer_priority, least=-(2**31), most=2**31 - 1)

    @classmethod
    def resolve(cls, queue: str, settings: Settings, **given: Unpack[HandlerKwargs]) -> HandlerOptions:
        """Complete what was `given` for a handler from the `settings`."""
        unknown = given.keys() - _NAMES
        if unknown:
            raise ConfigError(
                f"handler({queue!r}): unknown option {', '.join(sorted(unknown))};"
                f" known are {', '.join(sorted(_NAMES))}"
            )
        for name in given.keys() & {"retry_delay", "max_retry_delay"}:
            seconds(name, given[name])  # type: ignore[literal-required]
        arguments: object = given.get("arguments", {})
        if not isinstance(arguments, Mapping):
            raise ConfigError(f"arguments={arguments!r}: expected a dict of queue arguments (x-…)")
        options: dict[str, Any] = {
            "dlq": default_dlq(queue),
            "max_retries": settings.max_retries,
            "prefetch": settings.prefetch,
            "timeout": settings.handler_timeout,
            "retry_delay": min(settings.retry_delay, given.get("max_retry_delay", settings.retry_delay)),
            "max_retry_delay": max(settings.max_retry_delay, given.get("retry_delay", 0.0)),
            "queue_type": settings.queue_type,
            **given,
        }
        bind = options.pop("bind", ())
        if not isinstance(bind, Binding | Sequence):
            raise ConfigError(f"bind={bind!r}: expected Binding(exchange, routing_key), or several in a list")
        options["bind"] = (bind,) if isinstance(bind, Binding) else tuple(bind)
        if options["bind"]:
            options.setdefault("idempotency_key", "message_id")
        return cls(queue=queue, **options)


def of_delay_line(name: str) -> bool:
    """Whether a queue or an exchange of this name is one of the delay line's."""
    return name.startswith(DELAY_LINE) or name in (HOME, HOMELESS)


def default_dlq(queue: str) -> str:
    """The DLQ of a queue whose DLQ is not named."""
    return f"{queue}_dlq"


_NAMES = frozenset(f.name for f in fields(HandlerOptions)) - {"queue"}
