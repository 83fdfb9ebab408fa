"""The injector of one app: its overrides of the moment, and what it provides itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from fastapi.datastructures import State

from autosell_rmq import Injected, Injection, Injector, Message
from autosell_rmq_fastapi.injection.lifespan_state import lifespan_state
from autosell_rmq_fastapi.injection.planning import Limits, Overrides, Planner, Provided, Use, check_others
from autosell_rmq_fastapi.injection.running import values_for


def injector_for(
    app: FastAPI, *, state: Mapping[str, Any] | None = None, provided: Provided | None = None
) -> Injector:
    """An injector that serves ``Depends(…)`` in the parameters of an app's message handlers.

    Args:
        app: its ``dependency_overrides`` count, as they are when a message comes.
        state: what the app's lifespan yielded, for `lifespan_state`.
        provided: dependencies that routes get from their connection, and what gives handlers the value;
            called on the event loop, for each message.
    """
    yielded = dict(state or {})
    own: Provided = {lifespan_state: lambda: State(dict(yielded))}
    return _AppInjector(app, {**own, **(provided or {})})


class _AppInjector:
    def __init__(self, app: FastAPI, provided: Provided) -> None:
        self._app = app
        self._provided = provided
        self._limits: Limits = {}

    def plan(
        self, name: str, function: Callable[..., object], parameters: Sequence[Injected]
    ) -> Injection | None:
        check_others(name, function, parameters)
        if not parameters:
            return None

        def uses(overrides: Overrides) -> tuple[Use, ...]:
            return Planner(name, overrides, self._provided, self._limits).uses(parameters)

        return _HandlerInjection(uses, self._app)


class _HandlerInjection:
    """The plan of one handler, made again when the overrides are other ones."""

    def __init__(self, plan: Callable[[Overrides], tuple[Use, ...]], app: FastAPI) -> None:
        self._plan = plan
        self._app = app
        self._overrides: Overrides = {}
        self._planned = plan(self._overrides)
        self._uses()  # an override that is refused is told at the start, too

    def __call__(self, message: Message) -> AbstractAsyncContextManager[Mapping[str, object]]:
        return values_for(self._uses(), message)

    def _uses(self) -> tuple[Use, ...]:
        overrides = self._app.dependency_overrides
        if overrides != self._overrides:
            self._planned = self._plan(overrides)
            self._overrides = dict(overrides)
        return self._planned
