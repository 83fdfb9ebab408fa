"""The project's app object: the core's `RabbitMQ`, built from the setting and the discovered handlers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Unpack, cast

from django.utils.module_loading import import_string

from autosell_rmq import (
    ConfigError,
    HandlerKwargs,
    IdempotencyStore,
    Middleware,
    Observer,
    RabbitMQ,
    SettingsKwargs,
    ThreadPool,
)
from autosell_rmq_django import conf, registry, signals
from autosell_rmq_django.conf import AppSettings
from autosell_rmq_django.connections import AsyncConnections, in_handler_thread
from autosell_rmq_django.registry import Claim, Selection
from autosell_rmq_django.relay import OutboxFlush
from autosell_rmq_django.signals import SignalObserver
from autosell_rmq_django.store import DatabaseStore

_QUEUE_OPTIONS = HandlerKwargs.__optional_keys__


class Overrides(SettingsKwargs, total=False):
    """What `build_app` takes besides: the settings of the core, and these.

    Keys:
        url: of another broker.
        store: another one than ``IDEMPOTENCY`` names.
        observers: told of every message, besides the signals and the log.
        thread_pool: runs the sync handlers.
    """

    url: str
    store: IdempotencyStore
    observers: Sequence[Observer]
    thread_pool: ThreadPool


def build_app(
    queues: Collection[str] | None = None, exclude: Collection[str] = (), **overrides: Unpack[Overrides]
) -> RabbitMQ:
    """Make the app, not yet connected: for `rmq_consume`, for tests, for a process of your own.

    Args:
        queues: consume only these; by default every queue that has a handler.
        exclude: not these.
        overrides: settings that win over ``AUTOSELL_RMQ``, also over ``QUEUES``, and over the handlers' own.

    Raises:
        ImproperlyConfigured: the setting is wrong.
        ConfigError: handlers could not be imported or clash, or a queue has none; it names them.
    """
    settings = conf.get_settings()
    url = overrides.pop("url", settings.url)
    store = overrides.pop("store", None) or build_store(settings)
    observers = overrides.pop("observers", ())
    thread_pool = overrides.pop("thread_pool", None)
    given = cast("SettingsKwargs", overrides)
    core: SettingsKwargs = {**settings.core, **given}
    if settings.redact is not None:
        core.setdefault("redact", cast("Callable[[str], str]", imported(settings.redact)))
    claims = choose(queues, exclude)
    senders = {claim.queue: claim.registration.handler.function for claim in claims}
    app = RabbitMQ(
        url,
        store=store,
        middleware=_middleware(settings, claims),
        observers=(signals.log, SignalObserver(senders), *observers),
        thread_context=in_handler_thread,
        thread_pool=thread_pool,
        **core,
    )
    options = {claim.queue: queue_options(claim.queue, settings, given) for claim in claims}
    app.include(Selection(claim.registration for claim in claims), overrides=options)
    if isinstance(store, DatabaseStore) and store.outbox_flush is None:
        store.outbox_flush = OutboxFlush(app.producer, settings, using=store.database)
    return app


def build_store(settings: AppSettings) -> IdempotencyStore:
    """The store that ``IDEMPOTENCY`` names.

    Raises:
        ConfigError: it cannot be imported, or refuses its options.
    """
    idempotency = settings.idempotency
    cls = imported(idempotency.store)
    options = dict(idempotency.options)
    if isinstance(cls, type) and issubclass(cls, DatabaseStore):
        options = {
            "database": idempotency.database,
            "ttl": idempotency.ttl,
            "lease": idempotency.lease,
            "lock_timeout": idempotency.lock_timeout,
            **options,
        }
    try:
        return cast("IdempotencyStore", cast("Callable[..., object]", cls)(**options))
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"IDEMPOTENCY: {idempotency.store} refuses its options: {error}") from error


def queue_options(queue: str, settings: AppSettings, given: Mapping[str, Any] | None = None) -> HandlerKwargs:
    """What wins over the options that a handler was decorated with."""
    wins = {name: value for name, value in (given or {}).items() if name in _QUEUE_OPTIONS}
    return cast("HandlerKwargs", {**settings.queues.get(queue, {}), **wins})


def choose(queues: Collection[str] | None = None, exclude: Collection[str] = ()) -> list[Claim]:
    """The handlers to consume for.

    Raises:
        ConfigError: a module failed to import, a queue has two handlers or none, or nothing is left.
    """
    found = registry.discover()
    if found.failures:
        failure = found.failures[0]
        raise ConfigError(f"{failure.module} cannot be imported: {failure.error!r}") from failure.error
    for queue, claims in found.conflicts().items():
        raise ConfigError(f"queue {queue!r} has several handlers: {described(claims)}; a queue has one")
    known = {claim.queue: claim for claim in found.claims}
    for queue in (*(queues or ()), *exclude):
        if queue not in known:
            raise ConfigError(_unknown(queue, known))
    chosen = [c for q, c in known.items() if (queues is None or q in queues) and q not in exclude]
    if not chosen:
        raise ConfigError(
            "there is nothing to consume: decorate a function in the rmq.py of an installed app with"
            " @handler(queue), from autosell_rmq_django import handler"
            if not known
            else "every queue that was asked for is excluded"
        )
    return chosen


def described(claims: Sequence[Claim]) -> str:
    """``shop.rmq.create_order (app shop) and billing.rmq.bill (app billing)``."""
    return " and ".join(f"{claim.name} (app {claim.app})" for claim in claims)


def _unknown(queue: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(queue, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known)) or 'none'}"
    return f"no handler for queue {queue!r}: {hint}"


def _middleware(settings: AppSettings, claims: Sequence[Claim]) -> list[Middleware]:
    layers: list[Middleware] = []
    # Only where it has something to do: any middleware costs a sync handler two changes of threads.
    if asynchronous := [claim.queue for claim in claims if claim.registration.handler.is_async]:
        layers.append(AsyncConnections(asynchronous))
    for path in settings.middleware:
        layer = imported(path)
        layers.append(cast("Middleware", layer() if isinstance(layer, type) else layer))
    return layers


def imported(path: str) -> object:
    """What a dotted path names.

    Raises:
        ConfigError: it cannot be imported.
    """
    try:
        return import_string(path)
    except ImportError as error:
        raise ConfigError(f"{path!r} cannot be imported: {error}") from error
