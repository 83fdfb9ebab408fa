"""Handlers, collected by queue before there is an app."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Unpack

from autosell_rmq.config import HandlerKwargs, HandlerOptions, Settings
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


class Router:
    """Collects handlers; `RabbitMQ.include` takes them over.

    ::

        router = Router()

        @router.handler("orders", max_retries=5)
        async def create_order(order: Order) -> OrderCreated: ...
    """

    def __init__(self) -> None:
        self._registrations: dict[str, Registration] = {}

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

    def include(
        self,
        router: Router,
        *,
        queues: Container[str] | None = None,
        overrides: Mapping[str, HandlerKwargs] | None = None,
    ) -> None:
        """Take over the handlers of another router.

        Args:
            router: theirs.
            queues: only the handlers of these; by default all.
            overrides: options by queue that win over those given with the handler.

        Raises:
            ConfigError: both have a handler for one queue, or an option is wrong.
        """
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
