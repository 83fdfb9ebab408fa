"""Handlers, collected by queue before there is an app, and the events that the app says it publishes."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Unpack

from autosell_rmq.config import Binding, HandlerKwargs, HandlerOptions, Settings
from autosell_rmq.config.check import entity_name
from autosell_rmq.exceptions import ConfigError
from autosell_rmq.pipeline import Handler


@dataclass(frozen=True, slots=True)
class Registration:
    """One handler, its queue, and the options that were given for it."""

    queue: str
    handler: Handler
    given: HandlerKwargs

    def options(self, settings: Settings) -> HandlerOptions:
        """The options, completed from the app's settings."""
        return HandlerOptions.resolve(self.queue, settings, **self.given)

    def with_options(self, override: HandlerKwargs) -> Registration:
        """The same handler with other options."""
        given: HandlerKwargs = {**self.given, **override}
        HandlerOptions.resolve(self.queue, Settings(), **given)
        return Registration(self.queue, self.handler, given)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedEvent:
    """An event that the app publishes, as its document shows it; see `Router.publishes`."""

    exchange: str
    routing_key: str
    payload_type: object
    exchange_type: Literal["topic", "direct", "fanout", "headers"] = "topic"
    description: str = ""


class Router:
    """Collects handlers; `RabbitMQ.include` takes them over.

    ::

        router = Router()

        @router.handler("orders", max_retries=5)
        async def create_order(order: Order) -> OrderCreated: ...
    """

    def __init__(self) -> None:
        self._registrations: dict[str, Registration] = {}
        self._events: dict[tuple[str, str], PublishedEvent] = {}

    @property
    def events(self) -> tuple[PublishedEvent, ...]:
        """What `publishes` has declared, in that order."""
        return tuple(self._events.values())

    def handler[**P, R](
        self, queue: str, **options: Unpack[HandlerKwargs]
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Register the decorated function for `queue`; returns the function unchanged.

        Raises:
            ConfigError: an unknown option or a wrong value, a signature that cannot be served, or a
                second handler for the same queue.
        """
        entity_name("queue", queue)
        HandlerOptions.resolve(queue, Settings(), **options)  # a wrong option is told where it is written

        def register(function: Callable[P, R]) -> Callable[P, R]:
            self._add(Registration(queue, Handler(function), options))
            return function

        return register

    def publishes(
        self,
        exchange: str,
        routing_key: str,
        payload_type: object,
        *,
        exchange_type: Literal["topic", "direct", "fanout", "headers"] = "topic",
        description: str = "",
    ) -> None:
        """Declare an event for the app's document; it is published by `publish_to_exchange` as ever.

        ::

            router.publishes("events", "order.created", OrderCreated)

        Raises:
            ConfigError: a name is wrong, or the event is declared already and differently.
        """
        Binding(exchange, routing_key, exchange_type)  # the same names, and the same checks
        self._add_event(
            PublishedEvent(
                exchange=exchange,
                routing_key=routing_key,
                payload_type=payload_type,
                exchange_type=exchange_type,
                description=description,
            )
        )

    def include(
        self,
        router: Router,
        *,
        queues: Container[str] | None = None,
        overrides: Mapping[str, HandlerKwargs] | None = None,
    ) -> None:
        """Take over the handlers of another router, and the events that it declares.

        Args:
            router: theirs.
            queues: only the handlers of these; by default all.
            overrides: options by queue that win over those given with the handler.

        Raises:
            ConfigError: both have a handler for one queue, or declare one event differently, or an option
                is wrong.
        """
        for event in router.events:
            self._add_event(event)
        for registration in router:
            if queues is None or registration.queue in queues:
                override = (overrides or {}).get(registration.queue)
                self._add(registration.with_options(override) if override else registration)

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._registrations.values())

    def __len__(self) -> int:
        return len(self._registrations)

    def _add(self, registration: Registration) -> None:
        present = self._registrations.get(registration.queue)
        if present is not None and present is not registration:
            raise ConfigError(
                f"queue {registration.queue!r} has two handlers: {present.handler.name} and"
                f" {registration.handler.name}; a queue has one"
            )
        self._registrations[registration.queue] = registration

    def _add_event(self, event: PublishedEvent) -> None:
        if self._events.setdefault((event.exchange, event.routing_key), event) != event:
            raise ConfigError(
                f"the event {event.routing_key!r} of exchange {event.exchange!r} is declared twice,"
                " and differently: an event has one payload type, exchange type and description"
            )
