"""The Redis store without a Redis: its address, its options, its optional dependency."""

import subprocess
import sys

import pytest

from autosell_rmq.exceptions import ConfigError, MissingExtra
from autosell_rmq.idempotency import RedisStore


def test_importing_the_package_does_not_import_redis() -> None:
    code = "import sys, autosell_rmq.idempotency; assert not {'redis', 'redis.asyncio'} & sys.modules.keys()"

    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_redis_py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)

    with pytest.raises(MissingExtra, match=r"pip install 'autosell-rmq\[redis\]'"):
        RedisStore()


def test_it_says_that_it_is_durable() -> None:
    assert RedisStore().durable is True


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:s3cret@cache/1", "redis://:***@cache/1"),
        ("rediss://app:s3cret@[::1]:6380/2?db=3", "rediss://app:***@[::1]:6380/2"),
        ("unix://app:s3cret@/run/redis.sock?db=1", "unix://app:***@/run/redis.sock"),
    ],
)
def test_the_password_is_not_shown(url: str, shown: str) -> None:
    assert repr(RedisStore(url, prefix="p:")) == f"RedisStore({shown!r}, prefix='p:')"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "must start with redis://"),
        ("http://:s3cret@cache", "must start with redis://"),
        ("redis://:s3cret/x@cache", "cannot be read"),
        ("redis://app:s3cret@cache:port", "cannot be read"),
        ("rediss://:s3cret@cache?ssl_cert_reqs=none", "'ssl_cert_reqs'"),
        ("redis://:s3cret@cache?decode_responses=True", "'decode_responses'"),
        ("redis://cache?password=s3cret", "'password'"),
    ],
)
def test_a_wrong_address_is_refused_without_showing_the_password(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        RedisStore(url)

    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("option", "value"), [("lease", 0), ("ttl", -1), ("timeout", 0), ("max_connections", 0)]
)
def test_a_wrong_option_is_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=option):
        RedisStore(**{option: value})  # type: ignore[arg-type]
