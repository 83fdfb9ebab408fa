"""The dependencies of a handler, read once from their signatures: what is refused is refused here."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import params

from autosell_rmq import ConfigError, Injected, Message
from autosell_rmq_fastapi.injection.callables import Kind, kind_of, name_of, parameters_of
from autosell_rmq_fastapi.injection.parameters import Asked, Context, asked_for, depends_on

type Provided = Mapping[Callable[..., Any], Callable[[], object]]
type Overrides = Mapping[Callable[..., Any], Callable[..., Any]]
type Limits = dict[params.Depends, asyncio.Semaphore]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dependency:
    """What is called, and with what.

    Attributes:
        kind: None where the app itself provides the value: `call` is a plain function then.
        context: the parameters that get the message.
    """

    call: Callable[..., Any]
    kind: Kind | None
    context: tuple[str, ...] = ()
    uses: tuple[Use, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Use:
    """One ``Depends(…)``: where the value of a dependency goes.

    Attributes:
        key: uses with the same one share a value, unless `use_cache` is False.
        of_function: it has the scope ``function``, and is closed before those that have not.
        limit: held while it runs, for a generator until it is closed.
    """

    name: str
    dependency: Dependency
    key: object
    use_cache: bool
    of_function: bool
    limit: asyncio.Semaphore | None


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    original: Callable[..., Any]
    call: Callable[..., Any]

    def __str__(self) -> str:
        if self.call is self.original:
            return f"{self.name} ({name_of(self.call)})"
        return f"{self.name} ({name_of(self.call)}, which overrides {name_of(self.original)})"


type _Path = tuple[_Step, ...]


class Planner:
    """Reads the dependencies of one handler.

    Args:
        handler: how errors call it.
        overrides: the app's ``dependency_overrides``.
        provided: what serves these dependencies instead of a call of them.
        limits: the semaphore of each ``Depends(max_concurrency=…)``, shared by all handlers.
    """

    def __init__(self, handler: str, overrides: Overrides, provided: Provided, limits: Limits) -> None:
        self._handler = handler
        self._overrides = overrides
        self._provided = provided
        self._limits = limits
        self._read: dict[Callable[..., Any], Dependency] = {}

    def uses(self, parameters: Sequence[Injected]) -> tuple[Use, ...]:
        """The plan of the handler's injected parameters.

        Raises:
            ConfigError: one cannot be served; it names the way to it.
        """
        return tuple(self._injected(parameter) for parameter in parameters)

    def _injected(self, parameter: Injected) -> Use:
        try:
            marker = depends_on(parameter.marker, parameter.annotation)
        except ConfigError as error:
            raise self._refused((), parameter.name, error) from None
        return self._use((), parameter.name, marker)

    def _use(self, path: _Path, name: str, marker: params.Depends) -> Use:
        original = marker.dependency
        assert original is not None  # `depends_on` saw to it
        call = self._overriding(path, name, original)
        path = (*path, _Step(name, original, call))
        dependency = self._dependency(path)
        of_function = marker.scope == "function"
        if dependency.kind in ("generator", "async generator") and not of_function:
            self._check_scopes(path, dependency)
        limit = marker.max_concurrency and self._limits.setdefault(
            marker, asyncio.Semaphore(marker.max_concurrency)
        )
        return Use(
            name=name,
            dependency=dependency,
            key=(original, of_function),
            use_cache=marker.use_cache,
            of_function=of_function,
            limit=limit or None,
        )

    def _overriding(self, path: _Path, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        try:
            call = self._overrides.get(original, original)
            hash(call)
        except TypeError:
            error = ConfigError(f"depends on {name_of(original)}, which cannot be hashed")
            raise self._refused(path, name, error) from None
        return call

    def _dependency(self, path: _Path) -> Dependency:
        call = path[-1].call
        if call in self._provided:
            return Dependency(call=self._provided[call], kind=None)
        if call in [step.call for step in path[:-1]]:
            raise ConfigError(f"{self._way(path)}: it depends on itself")
        if call not in self._read:
            self._read[call] = self._read_from(path)
        return self._read[call]

    def _read_from(self, path: _Path) -> Dependency:
        call = path[-1].call
        try:
            parameters = parameters_of(call)
        except ConfigError as error:
            raise ConfigError(f"{self._way(path)}: {error}") from None
        context: list[str] = []
        uses: list[Use] = []
        for parameter in parameters:
            match self._asked(path, parameter):
                case Context():
                    context.append(parameter.name)
                case params.Depends() as marker:
                    uses.append(self._use(path, parameter.name, marker))
                case None:
                    pass
        return Dependency(call=call, kind=kind_of(call), context=tuple(context), uses=tuple(uses))

    def _asked(self, path: _Path, parameter: inspect.Parameter) -> Asked:
        try:
            return asked_for(parameter)
        except ConfigError as error:
            raise self._refused(path, parameter.name, error) from None

    def _check_scopes(self, path: _Path, dependency: Dependency) -> None:
        """FastAPI's own rule: what is closed later cannot use what is closed sooner."""
        for use in dependency.uses:
            if use.of_function:
                raise ConfigError(
                    f'{self._way(path)}: it has the scope "request", and cannot depend on'
                    f' {name_of(use.dependency.call)}, whose scope is "function"'
                )

    def _refused(self, path: _Path, name: str, error: ConfigError) -> ConfigError:
        return ConfigError(f"{self._way(path)}: its parameter {name!r} {error}")

    def _way(self, path: _Path) -> str:
        """``handler shop.rmq.create_order: db (shop.deps.get_db) -> url (shop.deps.get_url)``."""
        return f"handler {self._handler}" + (f": {' -> '.join(map(str, path))}" if path else "")


def check_others(handler: str, function: Callable[..., object], parameters: Sequence[Injected]) -> None:
    """Refuse what only a route gets among the handler's other parameters, though it has a default.

    Raises:
        ConfigError: there is one.
    """
    injected = {parameter.name for parameter in parameters}
    others = [p for p in parameters_of(function) if p.name not in injected and p.annotation is not Message]
    for parameter in others[1:]:  # after the payload
        try:
            asked_for(parameter)
        except ConfigError as error:
            raise ConfigError(f"handler {handler}: its parameter {parameter.name!r} {error}") from None
