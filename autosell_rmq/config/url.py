"""The broker's address: parsed once, refused early, and never printed with its password."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self, override
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from autosell_rmq.exceptions import ConfigError

_PORTS = {"amqp": 5672, "amqps": 5671}
_QUERY = frozenset({"heartbeat", "name"})
# Each of these switches a protection off or reads a file: a deployment's settings, no parts of an address.
_REFUSED = {
    "no_verify_ssl": "TLS certificates are always verified",
    "verify": "TLS certificates are always verified",
    "cafile": "files are not read from an address",
    "capath": "files are not read from an address",
    "cadata": "certificates are not read from an address",
    "certfile": "files are not read from an address",
    "keyfile": "files are not read from an address",
    "auth": "the login mechanism is PLAIN",
    "timeout": "use connect_timeout=",
    "connection_attempts": "reconnecting is built in",
    "reconnect_interval": "reconnecting is built in",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerURL:
    """``amqp(s)://user:password@host:port/vhost?heartbeat=10&name=orders`` or ``memory://name``.

    As in the AMQP URI specification the vhost is percent-encoded; none, or a bare slash, is ``/``.
    """

    scheme: str
    host: str = ""
    port: int = 0
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    heartbeat: int | None = None
    name: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse an address.

        Raises:
            ConfigError: with the part that is wrong; the password is never in the message.
        """
        url = str(url).strip()
        if not url:
            raise ConfigError("the broker's URL is empty: expected amqp://user:password@host:5672/vhost")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigError(
                "the broker's URL cannot be read (is the port a number, are special characters of the"
                " password percent-encoded?): expected amqp://user:password@host:5672/vhost"
            ) from None
        if parts.scheme == "memory":
            return cls(scheme="memory", host=parts.netloc, vhost=unquote(parts.path[1:]) or "/")
        if parts.scheme not in _PORTS:
            raise ConfigError(
                f"the broker's URL starts with {parts.scheme + '://' if parts.scheme else 'no scheme'}:"
                " expected amqp://, amqps:// or memory://"
            )
        if not parts.hostname:
            raise ConfigError("the broker's URL names no host: expected amqp://user:password@host:5672/vhost")
        if parts.fragment:
            raise ConfigError("the broker's URL has a '#': percent-encode it (%23) in the password")
        query = _query(parts)
        return cls(
            scheme=parts.scheme,
            host=parts.hostname,
            port=port or _PORTS[parts.scheme],
            user=unquote(parts.username) if parts.username is not None else "guest",
            password=unquote(parts.password) if parts.password is not None else "guest",
            vhost=_vhost(parts),
            heartbeat=int(query["heartbeat"]) if "heartbeat" in query else None,
            name=query.get("name"),
        )

    @property
    def redacted(self) -> str:
        """The address as logs and errors show it."""
        if self.scheme == "memory":
            return f"memory://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = "" if self.vhost == "/" else f"/{self.vhost}"
        return f"{self.scheme}://{self.user}:***@{host}:{self.port}{vhost}"

    @override
    def __str__(self) -> str:
        return self.redacted


def _vhost(parts: SplitResult) -> str:
    path = parts.path
    if path in ("", "/"):
        return "/"
    if path == "//":  # how several clients write the vhost "/"
        return "/"
    if "/" in path[1:]:
        raise ConfigError(f"the vhost in the broker's URL is {path[1:]!r}: write a slash in its name as %2F")
    return unquote(path[1:])


def _query(parts: SplitResult) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _QUERY:
            why = _REFUSED.get(name, "it is not known")
            raise ConfigError(
                f"the broker's URL has the parameter {name!r}: {why}; allowed are {', '.join(sorted(_QUERY))}"
            )
        if name == "heartbeat" and not (value.isdecimal() and 1 <= int(value) <= 3600):
            raise ConfigError(f"heartbeat={value!r} in the broker's URL: expected seconds from 1 to 3600")
        options[name] = value
    return options
