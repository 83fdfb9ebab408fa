"""The lease mode on Redis: each primitive one Lua script on one key."""

from __future__ import annotations

import asyncio
import datetime as dt
from importlib import import_module
from typing import TYPE_CHECKING, Any, override
from urllib.parse import parse_qsl, urlsplit

from autosell_rmq.config.check import seconds, whole
from autosell_rmq.exceptions import ClosedError, ConfigError, MissingExtra, StoreUnavailable
from autosell_rmq.idempotency.lease import Claim, LeaseStore
from autosell_rmq.idempotency.store import Record

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

# A key is a hash: state (processing, done), token, fingerprint, data. The key's expiry is the lease while it
# is processing, the ttl when it is done: Redis's clock, nothing to clean up. Scripts run one at a time, so
# each is atomic. The token stays in the result: a repeated completion recognises itself.
_CLAIM = """
local found = redis.call('HMGET', KEYS[1], 'state', 'token', 'fingerprint', 'data')
if found[1] == 'done' then return {'done', found[3], found[4]} end
if found[1] and found[2] ~= ARGV[1] then return {'processing', found[3]} end
redis.call('HSET', KEYS[1], 'state', 'processing', 'token', ARGV[1], 'fingerprint', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return false
"""
_COMPLETE = """
local found = redis.call('HMGET', KEYS[1], 'state', 'token')
if found[1] and found[2] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'state', 'done', 'token', ARGV[1], 'fingerprint', ARGV[2], 'data', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
_RELEASE = """
local found = redis.call('HMGET', KEYS[1], 'state', 'token')
if found[1] == 'processing' and found[2] == ARGV[1] then redis.call('DEL', KEYS[1]) end
return false
"""
_LOOKUP = """
local found = redis.call('HMGET', KEYS[1], 'state', 'fingerprint', 'data')
if not found[1] then return false end
local now = redis.call('TIME')
local expires = now[1] * 1000 + math.floor(now[2] / 1000) + redis.call('PTTL', KEYS[1])
return {found[1], found[2], found[3] or '', string.format('%.0f', expires)}
"""


class RedisStore(LeaseStore):
    """Remembers results in Redis, for every process that uses the same `url` and `prefix`.

    It is as durable as that Redis: without AOF (``appendonly yes``) a restart forgets the last claims and
    results, or all of them, and their duplicates run again; so does a failover to a replica that lags behind.
    Set ``maxmemory-policy noeviction``: any other may drop claims and results that are still needed.

    Args:
        url: ``redis://user:password@host:6379/0``, ``rediss://…`` (TLS, verified) or ``unix://…``.
        lease: seconds that a claim lives without renewal.
        ttl: seconds that a result is remembered.
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
        self._scripts = {
            text: self._client.register_script(text) for text in (_CLAIM, _COMPLETE, _RELEASE, _LOOKUP)
        }
        try:
            await self.lookup("")  # like PING, and proves that scripts may be run
        except BaseException:
            await self.close()
            raise

    @override
    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @override
    async def claim(self, claim: Claim) -> Record | None:
        args = claim.token, claim.fingerprint, _ms(self.lease)
        found = await self._eval(_CLAIM, claim.key, *args)
        return None if found is None else _record(*found)

    @override
    async def complete(self, claim: Claim, data: bytes) -> bool:
        args = claim.token, claim.fingerprint, _ms(self.ttl), data
        return bool(await self._eval(_COMPLETE, claim.key, *args))

    @override
    async def release(self, claim: Claim) -> None:
        await self._eval(_RELEASE, claim.key, claim.token)

    @override
    async def lookup(self, key: str) -> Record | None:
        found = await self._eval(_LOOKUP, key)
        return None if found is None else _record(*found)

    async def _eval(self, script: str, key: str, *args: str | bytes | int) -> Any:  # noqa: ANN401 - any answer
        """Run a script, by its digest where Redis knows it. Here alone redis-py's errors are translated."""
        from redis.exceptions import RedisError

        if self._client is None:
            raise ClosedError(f"{self!r} is not open")
        if self._loop is not asyncio.get_running_loop():
            raise ClosedError(f"{self!r} was opened in another event loop")
        try:
            async with asyncio.timeout(self._timeout):
                return await self._scripts[script](keys=[self._prefix + key], args=args)
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
    done = state == b"done"
    return Record(
        state="done" if done else "processing",
        fingerprint=fingerprint.decode(),
        data=data if done else None,
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
