"""The one setting, ``AUTOSELL_RMQ``: typed, read when first needed, read anew after ``override_settings``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from autosell_rmq import ConfigError, HandlerKwargs, HandlerOptions, Settings, SettingsKwargs
from autosell_rmq_django import reading
from autosell_rmq_django.reading import Problem, Section

__all__ = ["NAME", "AppSettings", "Idempotency", "Outbox", "Problem", "forget", "get_settings", "read"]

NAME = "AUTOSELL_RMQ"
DAY = 24 * 3600.0

# The core's own settings, by their names here. `redact` and the middleware are dotted paths here.
_CORE = {f.name.upper(): f.name for f in fields(Settings) if f.name not in ("url", "redact")}
_QUEUE = {f.name.upper(): f.name for f in fields(HandlerOptions) if f.name not in ("queue", "bind")}
# The core compares these two; alone, neither has to fit the other's default.
_PAIRS = {"retry_delay": "max_retry_delay", "max_retry_delay": "retry_delay"}
_TLS = ("tls_ca_file", "tls_cert_file", "tls_key_file", "tls_key_password", "allow_insecure_tls")
# What stands before the @ of each address in a URL.
_LOGIN = re.compile(r"(?<=://)[^/?#]*(?=@)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """``AUTOSELL_RMQ["IDEMPOTENCY"]``.

    Attributes:
        store: dotted path of the store's class; `MemoryStore` and `RedisStore` of the core work too.
        database: alias of the database that keeps the records.
        ttl: seconds that a result is remembered.
        lease: seconds that an async handler's claim lives without renewal.
        lock_timeout: seconds that a duplicate waits in the database for its running twin.
        options: further keyword arguments of the store; the only ones of a store that is not in the database.
    """

    store: str = "autosell_rmq_django.store.DatabaseStore"
    database: str = "default"
    ttl: float = 7 * DAY
    lease: float = 60.0
    lock_timeout: float = 2.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """``AUTOSELL_RMQ["OUTBOX"]``: the relay inside ``rmq_consume`` that sends what stayed unsent.

    Attributes:
        relay: whether ``rmq_consume`` runs it.
        interval: seconds between two looks for unsent rows.
        batch: rows of one look.
        retention: seconds that sent rows are kept.
    """

    relay: bool = True
    interval: float = 1.0
    batch: int = 100
    retention: float = 1 * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """``AUTOSELL_RMQ``, complete.

    Attributes:
        url: the broker, or a list of the addresses of its nodes; by default ``RABBITMQ_URL``, else the
            core's default. Its password may stand in ``PASSWORD`` instead, which Django's debug page hides.
        core: what goes to the core's `Settings`; where it says nothing of retries, ``MAX_RETRIES`` of the
            environment does.
        queues: options by queue, which win over those of the ``@handler``.
        middleware: dotted paths, the first outermost.
        redact: dotted path of a function that hides secrets in error texts.
        processes: of one ``rmq_consume``.
        max_messages: after so many a process of ``rmq_consume`` leaves; a supervised one is replaced.
        health_file: touched by ``rmq_consume`` while it handles messages.
    """

    url: str = field(default=Settings().url, repr=False)
    core: SettingsKwargs = field(default_factory=SettingsKwargs, repr=False)
    idempotency: Idempotency = field(default_factory=Idempotency)
    outbox: Outbox = field(default_factory=Outbox)
    queues: Mapping[str, HandlerKwargs] = field(default_factory=dict)
    middleware: tuple[str, ...] = ()
    redact: str | None = None
    processes: int = 1
    max_messages: int | None = None
    health_file: str | None = None


@cache
def get_settings() -> AppSettings:
    """The setting, read at the first call.

    Raises:
        ImproperlyConfigured: with everything that is wrong in it.
    """
    settings, problems = read()
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ImproperlyConfigured(f"The setting {NAME} cannot be used:{lines}")
    return settings


def forget(*, setting: str, **_: object) -> None:
    """``setting_changed``: the setting is read anew when it is next needed."""
    if setting == NAME:
        get_settings.cache_clear()


def read() -> tuple[AppSettings, tuple[Problem, ...]]:
    """The setting as far as it is right, and what is wrong in it."""
    problems: list[Problem] = []
    root = Section(getattr(django_settings, NAME, {}), NAME, problems)
    environment = Section(os.environ, "os.environ", problems)
    url = _url(root, environment)
    settings = AppSettings(
        url=url,
        core=_core(root, environment, url),
        idempotency=_idempotency(root.section("IDEMPOTENCY")),
        outbox=_outbox(root.section("OUTBOX")),
        queues=dict(_queues(root.section("QUEUES"))),
        middleware=_paths(root, "MIDDLEWARE"),
        redact=root.take("REDACT", reading.optional(reading.dotted_path), None),
        processes=root.take("PROCESSES", reading.count, 1),
        max_messages=root.take("MAX_MESSAGES", reading.optional(reading.count), None),
        health_file=_file(root, "HEALTH_FILE"),
    )
    root.finish(_CORE)
    return settings, tuple(problems)


def _url(root: Section, environment: Section) -> str:
    section, key = (root, "URL") if "URL" in root else (environment, "RABBITMQ_URL")
    given: object = section.take(key, _anything, None)
    password: object = root.take("PASSWORD", _anything, None)
    # The values themselves are never shown.
    if given is not None and not isinstance(given, str | list | tuple):
        wrong = "expected a string such as amqp://user:password@host:5672/vhost, or a list of them"
        section.report("autosell_rmq.E003", wrong, at=key)
        return Settings().url
    try:
        url = Settings.build(given).url
    except ConfigError as error:
        section.report("autosell_rmq.E003", str(error), at=key)
        return Settings().url
    return _with_password(url, password, root) if password is not None else url


def _with_password(url: str, password: object, root: Section) -> str:
    logins = _LOGIN.findall(url)
    if not isinstance(password, str) or not password:
        root.report("autosell_rmq.E003", "expected a non-empty string", at="PASSWORD")
    elif len(logins) != url.count("://") or not all(logins) or ":" in "".join(logins):
        what = "goes with a URL that has a user and no password, such as amqp://user@host:5672/vhost"
        root.report("autosell_rmq.E003", what, at="PASSWORD")
    else:
        return _LOGIN.sub(lambda login: f"{login[0]}:{quote(password, safe='')}", url)
    return url


def _core(root: Section, environment: Section, url: str) -> SettingsKwargs:
    given: dict[str, Any] = {
        name: root.take(key, _anything, None) for key, name in _CORE.items() if key in root
    }
    if "max_retries" not in given and (retries := environment.take("MAX_RETRIES", _digits, "")):
        given["max_retries"] = int(retries)
    tls = {name: given.pop(name) for name in _TLS if name in given}
    right = {**_accepted(root, given, Settings), **_together(root, tls, partial(Settings, url=url))}
    return cast("SettingsKwargs", right)


def _queues(section: Section) -> Iterator[tuple[str, HandlerKwargs]]:
    for queue in section.keys:
        options = section.section(queue)
        given = {name: options.take(key, _anything, None) for key, name in _QUEUE.items() if key in options}
        options.finish(_QUEUE)
        resolve = partial(HandlerOptions.resolve, queue, Settings())
        yield queue, cast("HandlerKwargs", _accepted(options, given, resolve))


def _accepted(section: Section, given: Mapping[str, Any], accept: Callable[..., object]) -> dict[str, Any]:
    """What the core accepts of the values, each alone and all together; its refusals are reported."""
    right: dict[str, Any] = {}
    for name, value in given.items():
        other = _PAIRS.get(name)
        company = {other: value} if other else {}
        try:
            accept(**{name: value}, **company)
        except (ConfigError, TypeError) as error:
            own = str(error).partition(f"{name}=")[2]
            what = f"is {own or f'{reading.shown(value)}: {error}'}"
            section.report("autosell_rmq.E003", what, at=name.upper())
        else:
            right[name] = value
    return _together(section, right, accept)


def _together(section: Section, given: dict[str, Any], accept: Callable[..., object]) -> dict[str, Any]:
    """The same, of values that only make sense together: all of them or none."""
    try:
        accept(**given)
    except ConfigError as error:
        name, _, why = str(error).partition("=")
        if name in _TLS:
            section.report("autosell_rmq.E003", f"is {why}", at=name.upper())
        else:
            section.report("autosell_rmq.E003", str(error))
        return {}
    return given


def _idempotency(section: Section) -> Idempotency:
    default = Idempotency()
    made = Idempotency(
        store=section.take("STORE", reading.dotted_path, default.store),
        database=section.take("DATABASE", reading.text, default.database),
        ttl=section.take("TTL", reading.seconds, default.ttl),
        lease=section.take("LEASE", reading.seconds, default.lease),
        lock_timeout=section.take("LOCK_TIMEOUT", reading.seconds, default.lock_timeout),
        options=section.take("OPTIONS", reading.names, default.options),
    )
    section.finish()
    return made


def _outbox(section: Section) -> Outbox:
    default = Outbox()
    made = Outbox(
        relay=section.take("RELAY", reading.flag, default.relay),
        interval=section.take("INTERVAL", reading.seconds, default.interval),
        batch=section.take("BATCH", reading.count, default.batch),
        retention=section.take("RETENTION", reading.seconds, default.retention),
    )
    section.finish()
    return made


def _paths(root: Section, key: str) -> tuple[str, ...]:
    given: Sequence[Any] = root.take(key, reading.listed, ())
    for path in given:
        if expected := reading.dotted_path(path):
            root.report("autosell_rmq.E003", f"has {reading.shown(path)}: expected {expected}", at=key)
    return tuple(path for path in given if reading.dotted_path(path) is None)


def _file(root: Section, key: str) -> str | None:
    """A path, as a string or a `Path`."""
    path: Any = root.take(key, _anything, None)
    if path is not None and not (isinstance(path, str | Path) and str(path)):
        root.report("autosell_rmq.E003", f"is {reading.shown(path)}: expected the path of a file", at=key)
        return None
    return None if path is None else str(path)


def _anything(value: object) -> None:
    """Checked elsewhere."""


def _digits(value: object) -> str | None:
    text = str(value)
    return None if not text or (text.isascii() and text.strip().isdecimal()) else "a whole number >= 0"
