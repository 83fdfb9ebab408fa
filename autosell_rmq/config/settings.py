"""The settings of an app or a single consumer or producer, with every default in one place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict, Unpack

from autosell_rmq.config.check import flag, names, one_of, patience, seconds, whole
from autosell_rmq.config.tls import TLS, FilePath
from autosell_rmq.config.url import BrokerURL, joined
from autosell_rmq.exceptions import ConfigError

DEFAULT_URL = "amqp://guest:guest@localhost/"


class SharedKwargs(TypedDict, total=False):
    """The settings that are no argument of their own anywhere."""

    prefetch: int
    threads: int | None
    heartbeat: int
    connect_timeout: float
    startup_timeout: float
    publish_timeout: float
    outage_timeout: float
    max_waiting: int
    max_waiting_bytes: int
    handler_timeout: float
    drain_timeout: float
    busy_timeout: float
    retry_delay: float
    max_retry_delay: float
    backoff: float
    max_backoff: float
    reconnect_timeout: float | None
    shuffle_hosts: bool
    when_blocked: Literal["fail", "wait"]
    max_body_bytes: int
    max_header_bytes: int
    queue_type: Literal["quorum", "classic"]
    reply_to_allowed: Sequence[str] | None
    tls_ca_file: FilePath | None
    tls_cert_file: FilePath | None
    tls_key_file: FilePath | None
    tls_key_password: str | None
    allow_insecure_tls: bool
    redact: Callable[[str], str] | None


class SettingsKwargs(SharedKwargs, total=False):
    """`Settings` as keyword arguments; the URL goes by its own name everywhere."""

    max_retries: int


SETTING_NAMES = frozenset(SettingsKwargs.__optional_keys__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is not said per handler. Times are seconds, sizes bytes.

    Attributes:
        url: ``amqp://``, ``amqps://`` or ``memory://``; by default ``RABBITMQ_URL``, else localhost. Several
            hosts of one cluster: ``amqp://user:password@host1,host2:5673/vhost``, or whole URLs with commas.
        max_retries: retries after a failure, so at most ``max_retries + 1`` runs.
        prefetch: messages that a handler may have in hand at once: the one knob for concurrency.
        threads: threads that run sync handlers; by default ``min(prefetch, 8)``.
        heartbeat: AMQP heartbeat; a silent connection is given up after about three of them.
        connect_timeout: for one attempt to connect.
        startup_timeout: how long a start waits for a broker that does not answer.
        publish_timeout: how long a publish waits for its confirm before its outcome is unknown.
        outage_timeout: how long a send may take in all while the broker is away: it waits, and is sent again
            under its ids; 0 is one attempt.
        max_waiting: sends that may wait for the broker at once; a further one fails at once.
        max_waiting_bytes: what they may take together.
        handler_timeout: how long one run may take; keep it below the broker's ``consumer_timeout`` (1800).
        drain_timeout: how long a stop waits for running handlers.
        busy_timeout: how long a duplicate waits for its running twin before it takes the delay line.
        retry_delay: before the first retry; it doubles with every further one.
        max_retry_delay: where the doubling ends.
        backoff: the first wait before a lost connection or consumer, or an outcome's failed publish, is
            tried again; it doubles.
        max_backoff: where that doubling ends.
        reconnect_timeout: how long consuming may stay interrupted before `RabbitMQ.run` ends with the error;
            by default it is tried for ever.
        shuffle_hosts: try the hosts of the URL in another order each time, instead of the order given.
        when_blocked: what a publish does while a memory or disk alarm blocks the broker: ``fail`` at once
            with `BrokerUnavailable`, or ``wait`` for its end within its timeout first.
        max_body_bytes: the largest body sent or handled; RabbitMQ 4 takes 16 MiB.
        max_header_bytes: the largest header table handled.
        queue_type: of the queues declared here.
        reply_to_allowed: patterns (``replies.*``) of the queues that replies may go to, beside direct
            reply-to; by default any but the app's own.
        tls_ca_file: certificates (PEM) that the broker's one has to come from; by default the system's.
        tls_cert_file: our own certificate (PEM), for a broker that asks for one.
        tls_key_file: its private key (PEM); by default it is in `tls_cert_file`.
        tls_key_password: of an encrypted key.
        allow_insecure_tls: neither the broker's certificate nor its host name is verified, so that anybody
            in between reads the password and every message.
        redact: gets every error text before it is logged, replied or dead-lettered, and returns what
            may be shown of it.
    """

    url: str = field(default=DEFAULT_URL, repr=False)
    max_retries: int = 3
    prefetch: int = 20
    threads: int | None = None
    heartbeat: int = 10
    connect_timeout: float = 10.0
    startup_timeout: float = 30.0
    publish_timeout: float = 10.0
    outage_timeout: float = 30.0
    max_waiting: int = 10_000
    max_waiting_bytes: int = 64 * 1024 * 1024
    handler_timeout: float = 1500.0
    drain_timeout: float = 30.0
    busy_timeout: float = 2.0
    retry_delay: float = 1.0
    max_retry_delay: float = 60.0
    backoff: float = 1.0
    max_backoff: float = 30.0
    reconnect_timeout: float | None = None
    shuffle_hosts: bool = False
    when_blocked: Literal["fail", "wait"] = "fail"
    max_body_bytes: int = 16 * 1024 * 1024
    max_header_bytes: int = 64 * 1024
    queue_type: Literal["quorum", "classic"] = "quorum"
    reply_to_allowed: Sequence[str] | None = None
    tls_ca_file: FilePath | None = None
    tls_cert_file: FilePath | None = None
    tls_key_file: FilePath | None = None
    tls_key_password: str | None = field(default=None, repr=False)
    allow_insecure_tls: bool = False
    redact: Callable[[str], str] | None = None

    def __post_init__(self) -> None:
        self.tls.check(self.broker_url.scheme)
        whole("max_retries", self.max_retries)
        whole("prefetch", self.prefetch, least=1, most=65_535)
        if self.threads is not None:
            whole("threads", self.threads, least=1)
        whole("heartbeat", self.heartbeat, least=1, most=3600)
        for name in _SECONDS:
            seconds(name, getattr(self, name))
        patience("outage_timeout", self.outage_timeout)
        whole("max_waiting", self.max_waiting)
        whole("max_waiting_bytes", self.max_waiting_bytes)
        if self.retry_delay > self.max_retry_delay:
            raise ConfigError(
                f"retry_delay={self.retry_delay:g} is over max_retry_delay={self.max_retry_delay:g}"
            )
        if self.backoff > self.max_backoff:
            raise ConfigError(f"backoff={self.backoff:g} is over max_backoff={self.max_backoff:g}")
        if self.reconnect_timeout is not None:
            seconds("reconnect_timeout", self.reconnect_timeout)
        flag("shuffle_hosts", self.shuffle_hosts)
        one_of("when_blocked", self.when_blocked, "fail", "wait")
        whole("max_body_bytes", self.max_body_bytes, least=1)
        whole("max_header_bytes", self.max_header_bytes, least=1)
        one_of("queue_type", self.queue_type, "quorum", "classic")
        if self.reply_to_allowed is not None:
            names("reply_to_allowed", self.reply_to_allowed)
        if self.redact is not None and not callable(self.redact):
            raise ConfigError(f"redact={self.redact!r}: expected a function from str to str")

    @classmethod
    def build(cls, url: str | Sequence[str] | None, **given: Unpack[SettingsKwargs]) -> Settings:
        """Settings from what was `given`; without a `url`, the default one."""
        unknown = given.keys() - SETTING_NAMES
        if unknown:
            raise ConfigError(
                f"unknown setting {', '.join(sorted(unknown))}; known are {', '.join(sorted(SETTING_NAMES))}"
            )
        return cls(url=joined(url) or DEFAULT_URL, **given)

    @property
    def tls(self) -> TLS:
        return TLS(
            ca_file=self.tls_ca_file,
            cert_file=self.tls_cert_file,
            key_file=self.tls_key_file,
            key_password=self.tls_key_password,
            insecure=self.allow_insecure_tls,
        )

    @property
    def broker_url(self) -> BrokerURL:
        return BrokerURL.parse(self.url)


_SECONDS = (
    "connect_timeout",
    "startup_timeout",
    "publish_timeout",
    "handler_timeout",
    "drain_timeout",
    "busy_timeout",
    "retry_delay",
    "max_retry_delay",
    "backoff",
    "max_backoff",
)


@dataclass(frozen=True, slots=True)
class Environment:
    """The four variables of the environment, each None where it is unset or empty."""

    url: str | None
    queue_name: str | None
    dlq_name: str | None
    max_retries: int | None


def from_environment(environ: Mapping[str, str] | None = None) -> Environment:
    """Read ``RABBITMQ_URL``, ``QUEUE_NAME``, ``DLQ_NAME`` and ``MAX_RETRIES``, now.

    Raises:
        ConfigError: ``MAX_RETRIES`` is no whole number.
    """
    environ = os.environ if environ is None else environ
    retries = environ.get("MAX_RETRIES") or None
    if retries is not None and not (retries.isascii() and retries.strip().isdecimal()):
        raise ConfigError(f"environment variable MAX_RETRIES={retries!r}: expected a whole number >= 0")
    return Environment(
        url=environ.get("RABBITMQ_URL") or None,
        queue_name=environ.get("QUEUE_NAME") or None,
        dlq_name=environ.get("DLQ_NAME") or None,
        max_retries=int(retries) if retries is not None else None,
    )
