"""The handlers of a project: ``rmq.py`` of every installed app, found and imported once."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Unpack, override

from django.apps import AppConfig, apps
from django.utils.module_loading import module_has_submodule

from autosell_rmq import ConfigError, HandlerKwargs, Registration, Router

MODULE = "rmq"


@dataclass(frozen=True, slots=True)
class Claim:
    """A handler, and the app in whose ``rmq.py`` it was found (the module's name, outside of any app)."""

    registration: Registration
    app: str

    @property
    def queue(self) -> str:
        return self.registration.queue

    @property
    def name(self) -> str:
        """``shop.rmq.create_order``."""
        return self.registration.handler.name


@dataclass(frozen=True, slots=True)
class Failure:
    """An app's ``rmq.py`` that could not be imported."""

    app: str
    module: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found.

    Attributes:
        claims: each handler, in the order of the apps; one queue may have several, which is an error.
        failures: what could not be imported.
    """

    claims: tuple[Claim, ...] = ()
    failures: tuple[Failure, ...] = ()

    def conflicts(self) -> dict[str, list[Claim]]:
        """The queues that several handlers claim."""
        by_queue: dict[str, list[Claim]] = {}
        for claim in self.claims:
            by_queue.setdefault(claim.queue, []).append(claim)
        return {queue: claims for queue, claims in by_queue.items() if len(claims) > 1}


class Selection(Router):
    """A router of handlers that were registered elsewhere, for `RabbitMQ.include`."""

    def __init__(self, registrations: Iterable[Registration] = ()) -> None:
        super().__init__()
        self._selected = list(registrations)

    @override
    def __iter__(self) -> Iterator[Registration]:
        return iter(tuple(self._selected))

    @override
    def __len__(self) -> int:
        return len(self._selected)


class DefaultRouter(Selection):
    """The router behind ``from autosell_rmq_django import handler``.

    Unlike the core's it takes a second handler for a queue, for the check that names both with their apps:
    an error in the middle of an import would tell of one.

    Attributes:
        modules: where each handler was registered, in the same order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.modules: list[str] = []

    @override
    def handler[F: Callable[..., object]](
        self, queue: str, **options: Unpack[HandlerKwargs]
    ) -> Callable[[F], F]:
        """Register a function for `queue`, or a class: one instance of it is made, and called.

        Returns what it decorates, unchanged. For the options see `HandlerOptions` of the core; those of
        ``AUTOSELL_RMQ["QUEUES"]`` win over them.

        Raises:
            ConfigError: an unknown option or a wrong value, a signature that cannot be served.
        """
        alone = Router()
        register = alone.handler(queue, **options)

        def take(function: F) -> F:
            register(_served(function))
            self._selected += alone
            self.modules.append(_calling_module())
            return function

        return take

    @override
    def include(
        self,
        router: Router,
        *,
        queues: Container[str] | None = None,
        overrides: Mapping[str, HandlerKwargs] | None = None,
    ) -> None:
        alone = Router()
        alone.include(router, queues=queues, overrides=overrides)
        self._selected += alone
        self.modules += [_calling_module()] * len(alone)


def _calling_module() -> str:
    """The module of the code that called our caller."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame.f_back if frame is not None else None
    return str(frame.f_globals.get("__name__", "?")) if frame is not None else "?"


def _served(function: Callable[..., object]) -> Callable[..., object]:
    return _instance(function) if inspect.isclass(function) else function


def _instance(cls: type) -> Callable[..., object]:
    name = f"{cls.__module__}.{cls.__qualname__}"
    if not any("__call__" in vars(base) for base in cls.__mro__):
        raise ConfigError(f"handler {name}: a class handles messages by its method __call__, and it has none")
    try:
        instance: Callable[..., object] = cls()
    except TypeError as error:
        raise ConfigError(f"handler {name}: an instance is made without arguments: {error}") from error
    return instance


class Registry:
    """What an autodiscovery finds; one for the process, others for tests."""

    def __init__(self) -> None:
        self.router = DefaultRouter()
        self._found: Discovery | None = None
        self._lock = threading.RLock()

    def discover(self) -> Discovery:
        """Import ``rmq.py`` of every installed app, at the first call.

        A module that fails is a `Failure` of the result: only `AppRegistryNotReady` is raised.
        """
        apps.check_apps_ready()
        with self._lock:
            if self._found is None:
                self._found = self._search(apps.get_app_configs())
            return self._found

    def _search(self, configs: Iterable[AppConfig]) -> Discovery:
        claims: list[Claim] = []
        failures: list[Failure] = []
        routers: list[Router] = []
        for config in configs:
            name = f"{config.name}.{MODULE}"
            if config.module is None or not module_has_submodule(config.module, MODULE):
                continue
            try:
                module = importlib.import_module(name)
            except Exception as error:  # noqa: BLE001 - whatever it is, the check names it
                failures.append(Failure(config.label, name, error))
                continue
            for router in vars(module).values():
                # The same router again: another app's rmq.py has imported it.
                if isinstance(router, Router) and router is not self.router and router not in routers:
                    routers.append(router)
                    claims += [Claim(entry, config.label) for entry in router]
        own = zip(self.router, self.router.modules, strict=True)
        everything = [*(Claim(entry, _app_of(module)) for entry, module in own), *claims]
        # One router may have included another: the same handler for the same queue is one claim, the last.
        once = {(claim.queue, id(claim.registration.handler)): claim for claim in everything}
        return Discovery(tuple(once.values()), tuple(failures))


def _app_of(module: str) -> str:
    config = apps.get_containing_app_config(module)
    return config.label if config is not None else module


registry = Registry()
router = registry.router
handler = router.handler
discover = registry.discover
