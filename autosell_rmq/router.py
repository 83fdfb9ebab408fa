"""Handlers, collected by queue before there is an app."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

    def include(self, router: Router) -> None:
        """Take over the handlers of another router.

        Raises:
            ConfigError: both have a handler for one queue.
        """
        for registration in router:
            self._add(registration)

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
