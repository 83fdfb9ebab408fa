"""The setting ``AUTOSELL_RMQ``: read when needed, every mistake named with its place."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory, override_settings
from django.views.debug import SafeExceptionReporterFilter, technical_500_response
from pytest_django.fixtures import Settings as DjangoSettings

from autosell_rmq import RabbitMQ, Settings
from autosell_rmq_django import conf
from tests.django.settings import AUTOSELL_RMQ
from tests.support.certificates import Authority

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def fresh() -> None:
    """The environment is the test's own by now."""
    conf.get_settings.cache_clear()


def problems(setting: object) -> list[tuple[str, str, str]]:
    """Id, place and text of what is wrong."""
    with override_settings(AUTOSELL_RMQ=setting):
        return [(p.id.removeprefix("autosell_rmq."), p.where, str(p)) for p in conf.read()[1]]


def test_without_the_setting_everything_has_a_default(settings: DjangoSettings) -> None:
    del settings.AUTOSELL_RMQ

    assert conf.get_settings() == conf.AppSettings()
    assert conf.get_settings().url == "amqp://guest:guest@localhost/"
    assert conf.get_settings().idempotency.store == "autosell_rmq_django.store.DatabaseStore"


def test_every_key_arrives(tmp_path: Path) -> None:
    setting = {
        "URL": "amqps://shop:secret@rabbit.example/shop",
        "PREFETCH": 50,
        "THREADS": 4,
        "HEARTBEAT": 20,
        "MAX_RETRIES": 0,
        "RETRY_DELAY": 90,
        "MAX_RETRY_DELAY": 120.5,
        "QUEUE_TYPE": "classic",
        "IDEMPOTENCY": {
            "STORE": "autosell_rmq_django.store.DatabaseStore",
            "DATABASE": "other",
            "TTL": 60,
            "LEASE": 5.5,
            "LOCK_TIMEOUT": 1,
            "OPTIONS": {"threads": 2},
        },
        "OUTBOX": {"RELAY": False, "INTERVAL": 2, "BATCH": 7, "RETENTION": 3600},
        "QUEUES": {
            "orders": {"DLQ": "dead", "MAX_RETRIES": 5, "PREFETCH": 1, "TIMEOUT": 10, "DECLARE": False}
        },
        "MIDDLEWARE": ["shop.messaging.timed"],
        "REDACT": "shop.messaging.redact",
        "PROCESSES": 3,
        "MAX_MESSAGES": 1000,
        "HEALTH_FILE": tmp_path / "health",
    }

    with override_settings(AUTOSELL_RMQ=setting):
        read = conf.get_settings()

    assert read.url == "amqps://shop:secret@rabbit.example/shop"
    assert read.core == {
        "prefetch": 50,
        "threads": 4,
        "heartbeat": 20,
        "max_retries": 0,
        "retry_delay": 90,
        "max_retry_delay": 120.5,
        "queue_type": "classic",
    }
    assert read.idempotency == conf.Idempotency(
        database="other", ttl=60, lease=5.5, lock_timeout=1, options={"threads": 2}
    )
    assert read.outbox == conf.Outbox(relay=False, interval=2, batch=7, retention=3600)
    assert read.queues == {
        "orders": {"dlq": "dead", "max_retries": 5, "prefetch": 1, "timeout": 10, "declare": False}
    }
    assert (read.middleware, read.redact) == (("shop.messaging.timed",), "shop.messaging.redact")
    assert (read.processes, read.max_messages, read.health_file) == (3, 1000, str(tmp_path / "health"))
    assert "secret" not in repr(read)


def test_it_is_read_once_and_anew_after_a_change() -> None:
    before = conf.get_settings()
    assert conf.get_settings() is before

    with override_settings(AUTOSELL_RMQ={**AUTOSELL_RMQ, "PREFETCH": 7}):
        assert conf.get_settings().core == {"prefetch": 7}
    with override_settings(USE_TZ=False):
        assert conf.get_settings() is conf.get_settings()

    assert conf.get_settings() == before


def test_the_environment_fills_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://rabbit.example/")
    monkeypatch.setenv("MAX_RETRIES", "7")

    with override_settings(AUTOSELL_RMQ={}):
        assert conf.get_settings().url == "amqp://rabbit.example/"
        assert conf.get_settings().core == {"max_retries": 7}
    with override_settings(AUTOSELL_RMQ={"URL": "amqp://other.example/", "MAX_RETRIES": 1}):
        assert conf.get_settings().url == "amqp://other.example/"
        assert conf.get_settings().core == {"max_retries": 1}
        assert RabbitMQ(conf.get_settings().url, **conf.get_settings().core).settings.max_retries == 1


def test_the_password_may_stand_apart_where_djangos_debug_page_hides_it() -> None:
    setting = {"URL": "amqps://shop@rabbit.example:5671/shop?heartbeat=20", "PASSWORD": "s/e:c@r#et"}

    with override_settings(AUTOSELL_RMQ=setting):
        url = Settings(url=conf.get_settings().url).broker_url
        shown = SafeExceptionReporterFilter().get_safe_settings()["AUTOSELL_RMQ"]

    assert (url.user, url.password, url.host, url.vhost) == ("shop", "s/e:c@r#et", "rabbit.example", "shop")
    assert "s/e" not in str(shown)


@pytest.mark.parametrize(
    "url",
    [
        ["amqp://shop@h1/v", "amqp://shop@[::1]:5673/v"],
        ("amqp://shop@h1/v", "amqp://shop@[::1]:5673/v"),
        "amqp://shop@h1/v,amqp://shop@[::1]:5673/v",
        "amqp://shop@h1,[::1]:5673/v",
    ],
)
def test_several_hosts_share_the_password(url: object) -> None:
    with override_settings(AUTOSELL_RMQ={"URL": url, "PASSWORD": "s,e@c#r://et"}):
        broker = Settings(url=conf.get_settings().url).broker_url
        assert RabbitMQ(conf.get_settings().url).settings.broker_url == broker

    assert broker.addresses == (("h1", 5672), ("::1", 5673))
    assert (broker.user, broker.password, broker.vhost) == ("shop", "s,e@c#r://et", "v")


def test_the_debug_page_hides_what_is_named_for_a_secret(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("shop", use="clientAuth", password="k3ypass")
    setting = {
        "URL": "amqps://shop@rabbit.example/",
        "PASSWORD": "s3cret",
        "TLS_CA_FILE": authority.certificate,
        "TLS_CERT_FILE": pair.certificate,
        "TLS_KEY_FILE": pair.key,
        "TLS_KEY_PASSWORD": "k3ypass",
    }
    with override_settings(AUTOSELL_RMQ=setting):
        read = conf.get_settings()
        page = technical_500_response(RequestFactory().get("/"), LookupError, LookupError(), None).content

    assert RabbitMQ(read.url, **read.core).settings.tls_key_password == "k3ypass"
    shown = page.decode()
    assert "rabbit.example" in shown
    assert "s3cret" not in shown
    assert "k3ypass" not in shown
    assert "k3ypass" not in repr(read)


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ({"URL": "amqp://rabbit.example/", "PASSWORD": "secret"}, "that has a user and no password"),
        (
            {"URL": "amqp://shop:other@rabbit.example/", "PASSWORD": "secret"},
            "that has a user and no password",
        ),
        ({"URL": ["amqp://guest@h1", "amqp://h2"], "PASSWORD": "secret"}, "that has a user and no password"),
        ({"URL": "amqp://shop@rabbit.example/", "PASSWORD": ""}, "expected a non-empty string"),
        ({"URL": "amqp://shop@rabbit.example/", "PASSWORD": 4711}, "expected a non-empty string"),
    ],
)
def test_a_password_that_does_not_fit(setting: object, what: str) -> None:
    [(id, where, text)] = problems(setting)

    assert (id, where) == ("E003", 'AUTOSELL_RMQ["PASSWORD"]')
    assert what in text
    assert "secret" not in text
    assert "4711" not in text


@pytest.mark.parametrize(
    "setting",
    [
        "amqp://shop:s3cret@rabbit.example/",
        ["amqp://shop:s3cret@rabbit.example/"],
        {"IDEMPOTENCY": "redis://:s3cret@redis.example"},
        {"MIDDLEWARE": {"url": "amqp://shop:s3cr@et@rabbit.example/"}},
        {"REDACT": "amqp://shop:s3cret@rabbit.example/"},
    ],
)
def test_a_value_in_the_wrong_place_is_shown_without_its_password(setting: object) -> None:
    [(_, _, text)] = problems(setting)

    assert ".example" in text
    assert "s3cr" not in text
    assert "et@" not in text


@pytest.mark.parametrize(
    ("setting", "where", "what"),
    [
        ({"TLS_CA_FILE": "/nowhere.pem"}, '["TLS_CA_FILE"]', "is '/nowhere.pem': No such file"),
        ({"URL": "amqp://h", "TLS_CA_FILE": "/nowhere.pem"}, '["TLS_CA_FILE"]', "nothing of amqp://"),
        ({"TLS_CERT_FILE": "/nowhere.pem"}, '["TLS_CERT_FILE"]', "is '/nowhere.pem': No such file"),
        ({"TLS_KEY_PASSWORD": "s3cret"}, "", "go with tls_cert_file"),
        ({"TLS_KEY_PASSWORD": ["s3cret"]}, "", "tls_key_password: expected a non-empty string"),
        ({"ALLOW_INSECURE_TLS": "yes"}, '["ALLOW_INSECURE_TLS"]', "is 'yes': expected True or False"),
    ],
)
def test_tls_that_does_not_fit(setting: dict[str, object], where: str, what: str) -> None:
    [(id, place, text)] = problems({"URL": "amqps://rabbit.example/", **setting})

    assert (id, place) == ("E003", f"AUTOSELL_RMQ{where}")
    assert what in text
    assert "s3cret" not in text


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "")
    monkeypatch.setenv("MAX_RETRIES", "")

    with override_settings(AUTOSELL_RMQ={}):
        assert conf.get_settings() == conf.AppSettings()


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "http://user:secret@rabbit.example/")
    monkeypatch.setenv("MAX_RETRIES", "many")

    found = problems({})

    assert [(id, where) for id, where, _ in found] == [
        ("E003", 'os.environ["RABBITMQ_URL"]'),
        ("E003", 'os.environ["MAX_RETRIES"]'),
    ]
    assert "secret" not in str(found)


@pytest.mark.parametrize("setting", [[], None, "amqp://", 5])
def test_it_has_to_be_a_dictionary(setting: object) -> None:
    [(id, where, text)] = problems(setting)

    assert (id, where) == ("E001", "AUTOSELL_RMQ")
    assert "expected a dictionary" in text


@pytest.mark.parametrize("key", ["IDEMPOTENCY", "OUTBOX", "QUEUES"])
def test_so_have_those_inside(key: str) -> None:
    [(id, where, _)] = problems({key: ["x"]})

    assert (id, where) == ("E001", f'AUTOSELL_RMQ["{key}"]')


@pytest.mark.parametrize(
    ("setting", "where", "hint"),
    [
        ({"PREFETCHES": 5}, 'AUTOSELL_RMQ["PREFETCHES"]', 'did you mean "PREFETCH"?'),
        ({"prefetch": 5}, 'AUTOSELL_RMQ["prefetch"]', 'did you mean "PREFETCH"?'),
        ({"IDEMPOTENCY": {"TLT": 5}}, 'AUTOSELL_RMQ["IDEMPOTENCY"]["TLT"]', 'did you mean "TTL"?'),
        ({"OUTBOX": {"BATCHES": 5}}, 'AUTOSELL_RMQ["OUTBOX"]["BATCHES"]', 'did you mean "BATCH"?'),
        (
            {"QUEUES": {"orders": {"RETRIES": 5}}},
            'AUTOSELL_RMQ["QUEUES"]["orders"]["RETRIES"]',
            'did you mean "MAX_RETRIES"?',
        ),
        ({"XYZ": 5}, 'AUTOSELL_RMQ["XYZ"]', "known are ALLOW_INSECURE_TLS, BACKOFF, BUSY_TIMEOUT,"),
    ],
)
def test_an_unknown_key_is_named_with_what_was_meant(setting: object, where: str, hint: str) -> None:
    [(id, place, text)] = problems(setting)

    assert (id, place) == ("E002", where)
    assert hint in text


def test_a_key_that_is_no_string() -> None:
    [(id, where, text)] = problems({"QUEUES": {5: {}}})

    assert (id, where) == ("E002", 'AUTOSELL_RMQ["QUEUES"]')
    assert "has the key 5: expected a string" in text


@pytest.mark.parametrize(
    ("setting", "where", "what"),
    [
        ({"URL": 5}, '["URL"]', "expected a string such as amqp://"),
        ({"URL": "http://rabbit/"}, '["URL"]', "starts with http://: expected amqp://"),
        ({"PREFETCH": 0}, '["PREFETCH"]', "is 0: expected a whole number from 1 to 65535"),
        ({"PREFETCH": "5"}, '["PREFETCH"]', "is '5': expected a whole number"),
        ({"MAX_RETRIES": True}, '["MAX_RETRIES"]', "is True: expected a whole number >= 0"),
        ({"DRAIN_TIMEOUT": float("nan")}, '["DRAIN_TIMEOUT"]', "is nan: expected a number of seconds > 0"),
        ({"QUEUE_TYPE": ["x"]}, '["QUEUE_TYPE"]', "is ['x']: expected one of 'quorum', 'classic'"),
        ({"RETRY_DELAY": 100}, "", "retry_delay=100 is over max_retry_delay=60"),
        ({"MAX_RETRY_DELAY": 0.5}, "", "retry_delay=1 is over max_retry_delay=0.5"),
        ({"RETRY_DELAY": "x"}, '["RETRY_DELAY"]', "is 'x'"),
        ({"PROCESSES": 0}, '["PROCESSES"]', "is 0: expected a whole number >= 1"),
        ({"MAX_MESSAGES": 0}, '["MAX_MESSAGES"]', "expected a whole number >= 1, or None"),
        ({"HEALTH_FILE": 5}, '["HEALTH_FILE"]', "is 5: expected the path of a file"),
        ({"HEALTH_FILE": ""}, '["HEALTH_FILE"]', "is '': expected the path of a file"),
        ({"REDACT": "redact"}, '["REDACT"]', "is 'redact': expected a dotted path"),
        ({"REDACT": print}, '["REDACT"]', "expected a dotted path"),
        ({"MIDDLEWARE": "a.b"}, '["MIDDLEWARE"]', "is 'a.b': expected a list"),
        ({"MIDDLEWARE": ["a.b", "a..b"]}, '["MIDDLEWARE"]', "has 'a..b': expected a dotted path"),
        ({"IDEMPOTENCY": {"STORE": None}}, '["IDEMPOTENCY"]["STORE"]', "is None: expected a dotted path"),
        ({"IDEMPOTENCY": {"DATABASE": ""}}, '["IDEMPOTENCY"]["DATABASE"]', "is '': expected a non-empty"),
        ({"IDEMPOTENCY": {"TTL": 0}}, '["IDEMPOTENCY"]["TTL"]', "is 0: expected a number of seconds > 0"),
        ({"IDEMPOTENCY": {"OPTIONS": {1: 2}}}, '["IDEMPOTENCY"]["OPTIONS"]', "with strings as keys"),
        ({"OUTBOX": {"RELAY": 1}}, '["OUTBOX"]["RELAY"]', "is 1: expected True or False"),
        ({"OUTBOX": {"BATCH": 1.5}}, '["OUTBOX"]["BATCH"]', "is 1.5: expected a whole number >= 1"),
        ({"QUEUES": {"q": 1}}, '["QUEUES"]["q"]', "is 1: expected a dictionary"),
        ({"QUEUES": {"q": {"DLQ": "q"}}}, '["QUEUES"]["q"]["DLQ"]', "queue and dlq are both 'q'"),
        ({"QUEUES": {"q": {"TIMEOUT": -1}}}, '["QUEUES"]["q"]["TIMEOUT"]', "is -1: expected a number of"),
        (
            {"QUEUES": {"q": {"RETRY_DELAY": 9, "MAX_RETRY_DELAY": 5}}},
            '["QUEUES"]["q"]',
            "retry_delay=9 is over max_retry_delay=5",
        ),
        ({"QUEUES": {"q": {"RETRY_DELAY": "x"}}}, '["QUEUES"]["q"]["RETRY_DELAY"]', "is 'x'"),
        ({"QUEUES": {"q": {"DECLARE": "no"}}}, '["QUEUES"]["q"]["DECLARE"]', "expected True or False"),
        (
            {"QUEUES": {"q": {"EFFECT": "twice"}}},
            '["QUEUES"]["q"]["EFFECT"]',
            "'exactly_once', 'lease'",
        ),
        ({"QUEUES": {"q": {"ARGUMENTS": []}}}, '["QUEUES"]["q"]["ARGUMENTS"]', "is []: expected a dict"),
        (
            {"QUEUES": {"q": {"CONSUMER_PRIORITY": "x"}}},
            '["QUEUES"]["q"]["CONSUMER_PRIORITY"]',
            "whole number",
        ),
    ],
)
def test_a_wrong_value_is_named(setting: object, where: str, what: str) -> None:
    found = problems(setting)

    assert [place for _, place, _ in found] == [f"AUTOSELL_RMQ{where}"]
    assert what in found[0][2]
    assert found[0][0] in ("E001", "E003")


def test_the_error_names_them_all() -> None:
    setting = {
        "PREFETCH": 0,
        "PREFETCHES": 1,
        "URL": "amqp://user:secret@:x/",
        "IDEMPOTENCY": {"TTL": "week"},
    }

    with override_settings(AUTOSELL_RMQ=setting), pytest.raises(ImproperlyConfigured) as caught:
        conf.get_settings()

    lines = str(caught.value).splitlines()
    assert lines[0] == "The setting AUTOSELL_RMQ cannot be used:"
    assert len(lines) == 5
    assert all(any(key in line for line in lines) for key in ("PREFETCH", "PREFETCHES", "URL", "TTL"))
    assert "secret" not in str(caught.value)


def test_a_wrong_setting_is_not_remembered() -> None:
    with override_settings(AUTOSELL_RMQ={"PREFETCH": 0}), pytest.raises(ImproperlyConfigured):
        conf.get_settings()

    assert conf.get_settings().core == {}


def test_nothing_is_configured_at_import() -> None:
    """The public names can be imported, and a handler registered, without any settings."""
    code = (
        "from autosell_rmq_django import handler, producer, router\n"
        "import autosell_rmq_django.conf, autosell_rmq_django.registry\n"
        "@handler('orders')\n"
        "def order(data): ...\n"
        "from django.conf import settings\n"
        "assert not settings.configured and len(router) == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={"PATH": ""})
