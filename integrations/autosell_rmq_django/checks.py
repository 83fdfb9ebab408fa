"""What ``manage.py check`` says of the setting and of the handlers.

======  ==========================================================================================
E001    ``AUTOSELL_RMQ``, or a dictionary in it, is no dictionary
E002    an unknown key
E003    a wrong value
E004    a dotted path that cannot be imported
E005    what a dotted path names does not fit
E006    no such database alias
E007    results kept in memory, and several processes
E008    a ``rmq.py`` that cannot be imported
E009    two handlers for one queue
E010    a handler whose options or signature cannot be served
E011    ``effect="exactly_once"`` or ``batch=`` where that is not possible
E012    SQLite without ``transaction_mode`` IMMEDIATE
E013    MariaDB or MySQL with another isolation level than read committed
W014    ``QUEUES`` names a queue without a handler
W015    settings of the database store beside another store
W016    ``ALLOW_INSECURE_TLS``: the broker's certificate is not verified
W101    ``--deploy``: the login guest
W102    ``--deploy``: no TLS to another machine
W103    ``--deploy``: database connections that live on unchecked
W104    ``--deploy``: ``memory://``
W105    ``--deploy``: a password inside of ``URL``, which Django's debug page and error mails show
E106    ``--deploy``: ``ALLOW_INSECURE_TLS``
======  ==========================================================================================

None of them connects anywhere.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections

from autosell_rmq import ConfigError, Settings
from autosell_rmq_django import conf, registry
from autosell_rmq_django.conf import NAME, AppSettings
from autosell_rmq_django.registry import Claim

TAG = "autosell_rmq"
_IDEMPOTENCY = f'{NAME}["IDEMPOTENCY"]'
_TLS = f'{NAME}["ALLOW_INSECURE_TLS"]'
_INSECURE = "whoever answers at the broker's address is taken for it, and gets the password and the messages"
_TRUST = 'write "TLS_CA_FILE": the certificate of the authority that the broker\'s one comes from'

type Configs = Sequence[AppConfig] | None


def register() -> None:
    """Called once, when the app is ready."""
    for check in (check_setting, check_tls, check_store, check_handlers, check_databases):
        checks.register(check, TAG)
    checks.register(check_deployment, TAG, deploy=True)


def check_setting(app_configs: Configs, **_: object) -> list[CheckMessage]:
    """E001 to E005: keys, values, the dotted paths of functions."""
    settings, problems = conf.read()
    found: list[CheckMessage] = [Error(p.what, hint=p.hint or None, obj=p.where, id=p.id) for p in problems]
    for path in settings.middleware:
        found += _callable(path, f'{NAME}["MIDDLEWARE"]')
    if settings.redact is not None:
        found += _callable(settings.redact, f'{NAME}["REDACT"]')
    return found


def check_tls(app_configs: Configs, **_: object) -> list[CheckMessage]:
    """W016: verification is switched off."""
    settings, _problems = conf.read()
    return [Warning(_INSECURE, hint=_TRUST, obj=_TLS, id=f"{TAG}.W016")] if _insecure(settings) else []


def _insecure(settings: AppSettings) -> bool:
    return settings.core.get("allow_insecure_tls", False)


def check_store(app_configs: Configs, **_: object) -> list[CheckMessage]:
    """E004 to E007, W015: the idempotency store."""
    from autosell_rmq_django.consuming import build_store

    settings, _problems = conf.read()
    idempotency = settings.idempotency
    where = f'{_IDEMPOTENCY}["STORE"]'
    if problems := _callable(idempotency.store, where):
        return problems
    found: list[CheckMessage] = []
    if not _in_database(settings):
        found += _without_effect()
    elif idempotency.database not in connections:
        hint = f"there are {', '.join(connections)}"
        return [
            Error(
                "no such alias in DATABASES", hint=hint, obj=f'{_IDEMPOTENCY}["DATABASE"]', id=f"{TAG}.E006"
            )
        ]
    try:
        store = build_store(settings)
    except ConfigError as error:
        return [*found, Error(str(error), obj=where, id=f"{TAG}.E005")]
    if not store.durable and settings.processes > 1:
        found.append(in_memory(settings.processes))
    return found


def _callable(path: str, where: str) -> list[CheckMessage]:
    """E004, E005 of a dotted path."""
    from autosell_rmq_django.consuming import imported

    try:
        named = imported(path)
    except ConfigError as error:
        return [Error(str(error), obj=where, id=f"{TAG}.E004")]
    if not callable(named):
        return [Error(f"{path!r} is {named!r}: expected something to call", obj=where, id=f"{TAG}.E005")]
    return []


def _in_database(settings: AppSettings) -> bool:
    from autosell_rmq_django.consuming import imported
    from autosell_rmq_django.store import DatabaseStore

    try:
        cls = imported(settings.idempotency.store)
    except ConfigError:
        return False
    return isinstance(cls, type) and issubclass(cls, DatabaseStore)


def _without_effect() -> list[CheckMessage]:
    """W015: what only the database store takes is told to another one."""
    given = getattr(django_settings, NAME, {}).get("IDEMPOTENCY", {})
    return [
        Warning(
            "has no effect: this store takes its arguments from OPTIONS",
            hint=f'write "OPTIONS": {{"{key.lower()}": …}}',
            obj=f'{_IDEMPOTENCY}["{key}"]',
            id=f"{TAG}.W015",
        )
        for key in ("DATABASE", "TTL", "LEASE", "LOCK_TIMEOUT")
        if key in given
    ]


def in_memory(processes: int) -> Error:
    """E007; `rmq_consume` says it of its ``--processes``."""
    return Error(
        f"{processes} processes would each remember only their own messages: a duplicate that comes to"
        " another has its effect twice",
        hint="leave STORE out for the database, take autosell_rmq.RedisStore, or one process",
        obj=f'{_IDEMPOTENCY}["STORE"]',
        id=f"{TAG}.E007",
    )


def check_handlers(app_configs: Configs, **_: object) -> list[CheckMessage]:
    """E008 to E011, W014: every ``rmq.py``, and each handler with its queue's options."""
    from autosell_rmq_django.consuming import described

    settings, _problems = conf.read()
    discovery = registry.discover()
    found: list[CheckMessage] = []
    for failure in discovery.failures:
        if isinstance(failure.error, ConfigError):
            found.append(Error(str(failure.error), obj=failure.module, id=f"{TAG}.E010"))
        else:
            what = f"cannot be imported: {failure.error!r}"
            found.append(Error(what, obj=failure.module, id=f"{TAG}.E008"))
    for queue, claims in discovery.conflicts().items():
        what = f"queue {queue!r} has several handlers: {described(claims)}"
        hint = "a queue has one handler; to handle an event twice, bind two queues to it"
        found.append(Error(what, hint=hint, id=f"{TAG}.E009"))
    for claim in discovery.claims:
        found += _options(claim, settings)
    for queue in sorted(settings.queues.keys() - {claim.queue for claim in discovery.claims}):
        where = f'{NAME}["QUEUES"]["{queue}"]'
        found.append(Warning("no handler is registered for this queue", obj=where, id=f"{TAG}.W014"))
    return found


def _options(claim: Claim, settings: AppSettings) -> Iterator[CheckMessage]:
    """E010, E011 of one handler."""
    from autosell_rmq_django.consuming import queue_options

    try:
        registration = claim.registration.with_options(queue_options(claim.queue, settings))
        options = registration.options(Settings(url=settings.url, **settings.core))
    except ConfigError as error:
        yield Error(str(error), obj=claim.name, id=f"{TAG}.E010")
        return
    wanted = f"batch={options.batch}" if options.batch > 1 else 'effect="exactly_once"'
    if (options.batch > 1 or options.effect == "exactly_once") and (
        claim.registration.handler.is_async or not _in_database(settings)
    ):
        yield Error(
            f"{wanted} is not possible: it takes a def (not async) and the store in the database",
            hint=f"leave {wanted.partition('=')[0]}= out where once at least is enough",
            obj=claim.name,
            id=f"{TAG}.E011",
        )
    elif options.batch > options.prefetch:
        yield Error(
            f"batch={options.batch} is over prefetch={options.prefetch}: never so many messages come at once",
            obj=claim.name,
            id=f"{TAG}.E010",
        )


def check_databases(app_configs: Configs, **_: object) -> list[CheckMessage]:
    """E012, E013: what the transaction around a handler asks of its database, once there are handlers."""
    settings, _problems = conf.read()
    alias = settings.idempotency.database
    if not _in_database(settings) or alias not in connections or not registry.discover().claims:
        return []
    options: Mapping[str, Any] = connections[alias].settings_dict["OPTIONS"]
    where = f'DATABASES["{alias}"]["OPTIONS"]'
    vendor = connections[alias].vendor
    if vendor == "sqlite" and str(options.get("transaction_mode")).upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        what = (
            "of two messages at a time one fails with 'database is locked': SQLite lets no transaction that"
            " has begun with reading wait for one that writes"
        )
        hint = 'write "transaction_mode": "IMMEDIATE", and a "timeout" of some seconds'
        return [Error(what, hint=hint, obj=where, id=f"{TAG}.E012")]
    level = options.get("isolation_level", "read committed")  # Django's own default
    if vendor == "mysql" and str(level).lower() != "read committed":
        what = (
            f"the isolation level is {level or 'the one of the server'}: a duplicate would not see the result"
            " of the message that it has waited for"
        )
        hint = 'write "isolation_level": "read committed", or leave it out'
        return [Error(what, hint=hint, obj=where, id=f"{TAG}.E013")]
    return []


def check_deployment(app_configs: Configs, **_: object) -> list[CheckMessage]:
    """W101 to W105, E106."""
    settings, _problems = conf.read()
    url = Settings(url=settings.url).broker_url
    where = f'{NAME}["URL"]'
    found: list[CheckMessage] = []
    if url.scheme == "memory":
        what = "memory:// is a broker inside of each process: no other one gets its messages"
        found.append(Warning(what, obj=where, id=f"{TAG}.W104"))
    else:
        if url.user == "guest":
            what = "the login is guest, whose password everybody knows"
            found.append(Warning(what, hint="make a user of its own", obj=where, id=f"{TAG}.W101"))
        afar = [host for host, _port in url.addresses if not _is_local(host)]
        if url.scheme == "amqp" and afar:
            what = f"password and messages go to {', '.join(afar)} unencrypted"
            found.append(Warning(what, hint="use amqps://", obj=where, id=f"{TAG}.W102"))
        given = getattr(django_settings, NAME, {})
        if "URL" in given and "PASSWORD" not in given and url.password != "guest":
            what = "Django's debug page and its mails to the admins show the password that is in it"
            hint = 'write the password under "PASSWORD", or leave URL out for RABBITMQ_URL'
            found.append(Warning(what, hint=hint, obj=where, id=f"{TAG}.W105"))
    if _insecure(settings):
        found.append(Error(_INSECURE, hint=_TRUST, obj=_TLS, id=f"{TAG}.E106"))
    for alias in connections:
        database = connections[alias].settings_dict
        if database["CONN_MAX_AGE"] != 0 and not database["CONN_HEALTH_CHECKS"]:
            what = "connections live on between messages and are not checked before they are used again"
            hint = 'write "CONN_HEALTH_CHECKS": True'
            found.append(Warning(what, hint=hint, obj=f'DATABASES["{alias}"]', id=f"{TAG}.W103"))
    return found


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
