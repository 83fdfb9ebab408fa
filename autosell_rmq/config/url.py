"""The broker's address: parsed once, refused early, and never printed with its password."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, override
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from autosell_rmq.exceptions import ConfigError

_PORTS = {"amqp": 5672, "amqps": 5671}
_QUERY = frozenset({"heartbeat", "name"})
# Each of these switches a protection off or reads a file: a deployment's settings, no parts of an address.
_REFUSED = {
    "no_verify_ssl": "an address cannot switch TLS's verification off (the setting is allow_insecure_tls)",
    "verify": "an address cannot switch TLS's verification off (the setting is allow_insecure_tls)",
    "cafile": "an address names no files, use tls_ca_file=",
    "capath": "an address names no files, use tls_ca_file=",
    "cadata": "an address names no certificates, use tls_ca_file=",
    "certfile": "an address names no files, use tls_cert_file=",
    "keyfile": "an address names no files, use tls_key_file=",
    "auth": "the login mechanism is PLAIN",
    "timeout": "use connect_timeout=",
    "connection_attempts": "reconnecting is built in",
    "reconnect_interval": "reconnecting is built in",
}


_EXPECTED = "expected amqp://user:password@host:5672/vhost"

# Where a further address begins in a list of them, and the parts of one that may name several hosts.
_NEXT = re.compile(r"\s*,\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_PARTS = re.compile(r"([^/?#]*://)([^/?#]*@)?([^/?#]*)(.*)", re.DOTALL)


def joined(url: str | Sequence[str] | None) -> str | None:
    """One string for what a constructor was given: an address, or a list of them.

    Raises:
        ConfigError: it is an empty list, or one of a list cannot be used.
    """
    if not isinstance(url, list | tuple):
        return url if url is None else str(url)
    if not url:
        raise ConfigError(f"the list of the broker's URLs is empty: {_EXPECTED}")
    for one in url:
        BrokerURL.parse(one)
    return ",".join(str(one) for one in url)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerURL:
    """``amqp(s)://user:password@host:port/vhost?heartbeat=10&name=orders`` or ``memory://name``.

    As in the AMQP URI specification the vhost is percent-encoded; none, or a bare slash, is ``/``.
    Several hosts are ``host1:port,host2:port`` in one address, or several addresses that differ by their
    hosts alone, with a comma between them.

    Attributes:
        addresses: host and port of each node, in the order given; at least one.
    """

    scheme: str
    addresses: tuple[tuple[str, int], ...]
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
            raise ConfigError(f"the broker's URL is empty: {_EXPECTED}")
        first, *others = (cls._of_one(each) for each in _each(url))
        for other in others:
            if different := first._difference(other):
                raise ConfigError(
                    f"the broker's URLs differ in their {different}: one cluster is meant, so only hosts and"
                    " ports may differ"
                )
        return replace(first, addresses=first.addresses + tuple(o.addresses[0] for o in others))

    @classmethod
    def _of_one(cls, url: str) -> Self:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigError(
                "the broker's URL cannot be read (is the port a number, are special characters of the"
                f" password percent-encoded?): {_EXPECTED}"
            ) from None
        if parts.scheme == "memory":
            address = (parts.netloc, 0)
            return cls(scheme="memory", addresses=(address,), vhost=unquote(parts.path[1:]) or "/")
        if parts.scheme not in _PORTS:
            raise ConfigError(
                f"the broker's URL starts with {parts.scheme + '://' if parts.scheme else 'no scheme'}:"
                " expected amqp://, amqps:// or memory://"
            )
        if not parts.hostname:
            raise ConfigError(f"the broker's URL names no host: {_EXPECTED}")
        if parts.fragment:
            raise ConfigError("the broker's URL has a '#': percent-encode it (%23) in the password")
        query = _query(parts)
        return cls(
            scheme=parts.scheme,
            addresses=((parts.hostname, port or _PORTS[parts.scheme]),),
            user=unquote(parts.username) if parts.username is not None else "guest",
            password=unquote(parts.password) if parts.password is not None else "guest",
            vhost=_vhost(parts),
            heartbeat=int(query["heartbeat"]) if "heartbeat" in query else None,
            name=query.get("name"),
        )

    def _difference(self, other: BrokerURL) -> str | None:
        for part in ("scheme", "user", "password", "vhost", "heartbeat", "name"):
            if getattr(self, part) != getattr(other, part):
                return part
        # The name of a broker in memory is its host, and it has no nodes.
        return "name" if self.scheme == "memory" else None

    @property
    def host(self) -> str:
        """The first one's."""
        return self.addresses[0][0]

    @property
    def port(self) -> int:
        """The first one's."""
        return self.addresses[0][1]

    @property
    def redacted(self) -> str:
        """The address as logs and errors show it."""
        if self.scheme == "memory":
            return f"memory://{self.host}"
        hosts = ",".join(f"{bracketed(host)}:{port}" for host, port in self.addresses)
        vhost = "" if self.vhost == "/" else f"/{self.vhost}"
        return f"{self.scheme}://{self.user}:***@{hosts}{vhost}"

    @override
    def __str__(self) -> str:
        return self.redacted


def bracketed(host: str) -> str:
    """A host as it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _each(url: str) -> Iterator[str]:
    """An address for every host that `url` names."""
    for one in _NEXT.split(url):
        parts = _PARTS.fullmatch(one)
        if parts is None or parts[1].lower() == "memory://":
            yield one
            continue
        scheme, login, hosts, rest = parts.groups(default="")
        if "@" in rest:  # not shown: it may well be half of the password
            raise ConfigError(
                "the broker's URL has an '@' behind the host: in the password and the vhost write special"
                " characters percent-encoded (/ is %2F, ? is %3F, # is %23, @ is %40)"
            )
        if "@" in login[:-1] and "," in login:
            raise ConfigError(
                "the broker's URL has several '@': the login stands once, before the first of the hosts"
                " (amqp://user:password@host1,host2/vhost), and an '@' in the password is %40"
            )
        for host in hosts.split(","):
            yield f"{scheme}{login}{host.strip()}{rest}"


def _vhost(parts: SplitResult) -> str:
    path = parts.path
    if path in ("", "/"):
        return "/"
    if path == "//":  # how several clients write the vhost "/"
        return "/"
    if "/" in path[1:]:
        raise ConfigError(f"the vhost in the broker's URL is {path[1:]!r}: write a slash in its name as %2F")
    if "," in path:
        raise ConfigError(
            f"the vhost in the broker's URL is {path[1:]!r}: several hosts stand before the slash, and a"
            " comma in the vhost's name is %2C"
        )
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
