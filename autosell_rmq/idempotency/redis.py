"""The lease mode on Redis: a Lua script that carries out the steps of many keys."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, override
from urllib.parse import parse_qsl, urlsplit

from autosell_rmq import forks
from autosell_rmq.config.check import seconds, whole
from autosell_rmq.exceptions import ClosedError, ConfigError, MissingExtra, StoreUnavailable
from autosell_rmq.idempotency.batching import Batching
from autosell_rmq.idempotency.lease import Claim, LeaseStore
from autosell_rmq.idempotency.redis_scripts import LOOKUP, NOTE, STEPS
from autosell_rmq.idempotency.store import Note, Record

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

# What goes in one call: nobody else's command runs meanwhile.
_MOST = 100
_MOST_BYTES = 1024 * 1024
_AT_ONCE = 4


class _Step(NamedTuple):
    kind: Literal["claim", "complete", "release"]
    claim: Claim
    span: float
    data: bytes = b""


class RedisStore(LeaseStore):
    """Remembers results in Redis, for every process that uses the same `url` and `prefix`.

    It is as durable as that Redis: without AOF (``appendonly yes``) a restart forgets the last claims and
    results, or all of them, and their duplicates run again; so does a failover to a replica that lags behind.
    Set ``maxmemory-policy noeviction``: any other may drop claims and results that are still needed.

    Args:
        url: ``redis://user:password@host:6379/0``, ``rediss://…`` (TLS, verified) or ``unix://…``.
        lease: seconds that a claim lives without renewal.
        ttl: seconds that a result or a note is remembered.
        prefix: of every key in Redis, to share it with others.
        timeout: seconds that one step may take, connecting included.
        max_connections: more steps than this at once wait for each other, within their `timeout`.

    Raises:
        MissingExtra: redis-py is not installed.
        ConfigError: an argument is wrong.
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        *,
        lease: float = 60.0,
        ttl: float = 7 * 24 * 3600.0,
        prefix: str = "autosell:rmq:",
        timeout: float = 5.0,
        max_connections: int = 50,
    ) -> None:
        super().__init__(lease=lease, ttl=ttl)
        seconds("timeout", timeout)
        whole("max_connections", max_connections, least=1)
        _require_redis()
        self._url = url
        self._redacted = _redacted(url)
        self._prefix = prefix
        self._timeout = timeout
        self._max_connections = max_connections
        self._client: Redis | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scripts: dict[str, AsyncScript] = {}
        self._together: Batching[_Step, list[bytes]] | None = None
        forks.watch(self)

    def after_fork(self) -> None:
        """In a forked child: not open; the connections are the parent's."""
        forks.leave(self._client, self._loop, self._scripts, self._together)
        self._client = self._loop = self._together = None
        self._scripts = {}

    @override
    def __repr__(self) -> str:
        return f"RedisStore({self._redacted!r}, prefix={self._prefix!r})"

    @override
    async def open(self) -> None:
        """Connect; a loop of its own per opening. Idempotent.

        Raises:
            StoreUnavailable: Redis does not answer, or refuses the login.
        """
        if self._client is not None:
            return
        self._client = self._connect()
        self._loop = asyncio.get_running_loop()
        self._scripts = {text: self._client.register_script(text) for text in (STEPS, NOTE, LOOKUP)}
        self._together = Batching(
            self._carry_out,
            key=lambda step: step.claim.key,
            size=lambda step: len(step.data),
            most=_MOST,
            most_bytes=_MOST_BYTES,
            at_once=min(self._max_connections, _AT_ONCE),
        )
        try:
            await self.lookup("")  # like PING, and proves that scripts may be run
        except BaseException:
            await self.close()
            raise

    @override
    async def close(self) -> None:
        together, self._together = self._together, None
        if together is not None:
            await together.close()  # each trip ends within `timeout`
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @override
    async def claim(self, claim: Claim) -> Record | None:
        found = await self._step(_Step("claim", claim, self.lease))
        return _record(*found) if found else None

    @override
    async def complete(self, claim: Claim, data: bytes) -> bool:
        return not await self._step(_Step("complete", claim, self.ttl, data))

    @override
    async def release(self, claim: Claim) -> None:
        await self._step(_Step("release", claim, self.lease))

    async def _step(self, step: _Step) -> list[bytes]:
        """Carry it out, together with what others ask for meanwhile; empty when it was done."""
        self._check_open()
        assert self._together is not None
        return await self._together(step)

    async def _carry_out(self, steps: Sequence[_Step]) -> Sequence[list[bytes] | StoreUnavailable]:
        args: list[str | bytes | int] = []
        for kind, claim, span, data in steps:
            args += kind, claim.token, claim.fingerprint, _ms(span), data
        found: list[list[bytes]] = await self._eval(STEPS, [step.claim.key for step in steps], *args)
        return [self._judged(answer) for answer in found]

    def _judged(self, answer: list[bytes]) -> list[bytes] | StoreUnavailable:
        if answer[:1] == [b"error"]:
            return StoreUnavailable(f"Redis at {self._redacted}: {answer[1].decode()}")
        return answer

    @override
    async def note(self, key: str, note: Note) -> None:
        await self._eval(NOTE, [key], note.state, note.fingerprint, _ms(self.ttl), note.data)

    @override
    async def lookup(self, key: str) -> Record | None:
        found = await self._eval(LOOKUP, [key])
        return None if found is None else _record(*found)

    def _check_open(self) -> None:
        if self._client is None:
            raise ClosedError(f"{self!r} is not open")
        if self._loop is not asyncio.get_running_loop():
            raise ClosedError(f"{self!r} was opened in another event loop")

    async def _eval(self, script: str, of: Sequence[str], *args: str | bytes | int) -> Any:  # noqa: ANN401
        """Run a script, by its digest where Redis knows it. Here alone redis-py's errors are translated."""
        from redis.exceptions import RedisError

        self._check_open()
        keys = [name for key in of for name in (self._prefix + key, f"{self._prefix}{key}:note")]
        try:
            async with asyncio.timeout(self._timeout):
                return await self._scripts[script](keys=keys, args=args)
        except TimeoutError as error:
            raise StoreUnavailable(
                f"Redis at {self._redacted} did not answer in {self._timeout:g} s"
            ) from error
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis at {self._redacted}: {error}") from error

    def _connect(self) -> Redis:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as RedisConnectionError

        pool = BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            self._url,
            max_connections=self._max_connections,
            timeout=self._timeout,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            socket_keepalive=True,
            # A pooled connection may have died unnoticed: once more on a new one. Scripts may be repeated.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            protocol=2,
        )
        return Redis.from_pool(pool)


def _record(state: bytes, fingerprint: bytes, data: bytes = b"", expires_ms: bytes | None = None) -> Record:
    name: Literal["accepted", "processing", "failed", "done"] = state.decode()  # type: ignore[assignment]
    return Record(
        state=name,
        fingerprint=fingerprint.decode(),
        data=data if name == "done" else data or None,
        expires_at=None if expires_ms is None else dt.datetime.fromtimestamp(int(expires_ms) / 1000, dt.UTC),
    )


def _require_redis() -> None:
    try:
        import_module("redis.asyncio")
    except ImportError as error:
        raise MissingExtra("RedisStore needs redis-py: pip install 'autosell-rmq[redis]'") from error


def _redacted(url: str) -> str:
    """The URL without its password. Parameters, which could switch off TLS checks, are refused."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(
            "the Redis URL cannot be read (is the port a number, are special characters of the password"
            " percent-encoded?): expected redis://user:password@host:6379/0"
        ) from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ConfigError("the Redis URL must start with redis://, rediss:// or unix://")
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name != "db":
            raise ConfigError(f"the Redis URL has the parameter {name!r}: only db is allowed in it")
    login = f"{parts.username or ''}:***@" if parts.password else ""
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    return f"{parts.scheme}://{login}{host}{f':{port}' if port else ''}{parts.path}"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
