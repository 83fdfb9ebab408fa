"""``manage.py check``: every id, each with its opposite."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections
from django.test import override_settings

from autosell_rmq import Message, RedisStore
from autosell_rmq_django import checks, conf
from autosell_rmq_django.registry import Registry
from tests.django import settings
from tests.django.handler_fixtures import Project, own_registry, project

__all__ = ["own_registry", "project"]

MEMORY = "autosell_rmq.MemoryStore"


def found(deploy: bool = False, **setting: object) -> dict[str, CheckMessage]:
    """The messages by the last part of their ids."""
    conf.get_settings.cache_clear()
    if "URL" not in setting:
        setting = {"URL": "amqps://shop@rabbit.example/", "PASSWORD": "secret", **setting}
    with override_settings(AUTOSELL_RMQ=setting):
        messages = run_checks(tags=[checks.TAG], include_deployment_checks=deploy)
    assert all(message.id and message.id.startswith("autosell_rmq.") for message in messages)
    assert "secret" not in str(messages)
    return {str(message.id).removeprefix("autosell_rmq."): message for message in messages}


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Changes the options of a database, for the checks alone: nothing connects with them."""

    def change(alias: str = "default", vendor: str | None = None, **changes: object) -> None:
        connection = connections[alias]
        monkeypatch.setattr(connection, "settings_dict", {**connection.settings_dict, **changes})
        if vendor is not None:
            monkeypatch.setattr(connection, "vendor", vendor)

    return change


def order(data: dict[str, str]) -> None: ...


async def async_order(data: dict[str, str]) -> None: ...


def renamed(message: Message, call_next: object) -> None: ...


CONSTANT = 5


def test_a_right_project_has_no_message(own_registry: Registry) -> None:
    own_registry.router.handler("orders")(order)

    assert found() == {}
    assert found(deploy=True, QUEUES={"orders": {"PREFETCH": 5}}) == {}


def test_problems_of_the_setting() -> None:
    messages = found(PREFETCH=0, PREFETCHES=1, OUTBOX=[])

    assert set(messages) == {"E001", "E002", "E003"}
    assert messages["E001"].obj == 'AUTOSELL_RMQ["OUTBOX"]'
    assert messages["E002"].obj == 'AUTOSELL_RMQ["PREFETCHES"]'
    assert messages["E002"].hint == 'did you mean "PREFETCH"?'
    assert messages["E003"].msg == "is 0: expected a whole number from 1 to 65535"


@pytest.mark.parametrize(
    ("setting", "where"),
    [
        ({"MIDDLEWARE": ["nothing.of_this.name"]}, 'AUTOSELL_RMQ["MIDDLEWARE"]'),
        ({"REDACT": "tests.django.test_checks.nothing"}, 'AUTOSELL_RMQ["REDACT"]'),
        ({"IDEMPOTENCY": {"STORE": "autosell_rmq.Store"}}, 'AUTOSELL_RMQ["IDEMPOTENCY"]["STORE"]'),
    ],
)
def test_a_path_that_does_not_import(setting: dict[str, Any], where: str) -> None:
    messages = found(**setting)

    assert set(messages) == {"E004"}
    assert messages["E004"].obj == where
    assert "cannot be imported" in messages["E004"].msg


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"MIDDLEWARE": ["tests.django.test_checks.CONSTANT"]}, "is 5: expected something to call"),
        ({"REDACT": "tests.django.test_checks.CONSTANT"}, "is 5: expected something to call"),
        ({"IDEMPOTENCY": {"STORE": MEMORY, "OPTIONS": {"colour": "red"}}}, "refuses its options"),
        ({"IDEMPOTENCY": {"STORE": MEMORY, "OPTIONS": {"ttl": 0}}}, "refuses its options: ttl=0"),
        ({"IDEMPOTENCY": {"OPTIONS": {"colour": "red"}}}, "refuses its options"),
    ],
)
def test_what_a_path_names_does_not_fit(setting: dict[str, Any], says: str) -> None:
    messages = found(**setting)

    assert set(messages) == {"E005"}
    assert says in messages["E005"].msg


def test_no_such_alias() -> None:
    messages = found(IDEMPOTENCY={"DATABASE": "archive"})

    assert set(messages) == {"E006"}
    assert messages["E006"].obj == 'AUTOSELL_RMQ["IDEMPOTENCY"]["DATABASE"]'
    assert messages["E006"].hint == "there are default, other"


def test_results_in_memory_and_several_processes() -> None:
    assert set(found(IDEMPOTENCY={"STORE": MEMORY}, PROCESSES=2)) == {"E007"}
    assert found(IDEMPOTENCY={"STORE": MEMORY}, PROCESSES=1) == {}
    assert found(PROCESSES=2) == {}
    redis = {"STORE": f"{RedisStore.__module__}.RedisStore", "OPTIONS": {"url": "redis://127.0.0.1/"}}
    assert found(IDEMPOTENCY=redis, PROCESSES=2) == {}


def test_a_module_that_does_not_import(project: Project) -> None:
    project(billing="import nothing_of_this_name")
    messages = found()

    assert set(messages) == {"E008"}
    assert messages["E008"].obj == "billing.rmq"
    assert "nothing_of_this_name" in messages["E008"].msg


def test_two_apps_that_claim_one_queue_are_both_named(project: Project) -> None:
    code = """
        from autosell_rmq_django import handler

        @handler("orders")
        def order(data): ...
        """
    project(billing=code, stock=code)
    messages = found()

    assert set(messages) == {"E009"}
    says = (
        "queue 'orders' has several handlers: billing.rmq.order (app billing) and stock.rmq.order (app stock)"
    )
    assert messages["E009"].msg == says


@pytest.mark.parametrize("code", ["max_retries=-1", "timeout='long'", "colour='red'"])
def test_a_handlers_wrong_option(project: Project, code: str) -> None:
    project(
        billing=f"""
            from autosell_rmq_django import handler

            @handler("orders", {code})
            def order(data): ...
            """
    )
    messages = found()

    assert set(messages) == {"E010"}
    assert messages["E010"].obj == "billing.rmq"
    assert code.partition("=")[0] in messages["E010"].msg


def test_options_that_do_not_fit_together(own_registry: Registry) -> None:
    own_registry.router.handler("orders", dlq="dead")(order)
    own_registry.router.handler("dead", dlq="orders")(order)
    messages = found(QUEUES={"orders": {"DLQ": "graveyard"}, "dead": {"DLQ": "orders"}})

    assert messages == {}


def test_exactly_once_needs_a_def(own_registry: Registry) -> None:
    own_registry.router.handler("orders", effect="exactly_once")(async_order)
    messages = found()

    assert set(messages) == {"E011"}
    assert messages["E011"].obj == "tests.django.test_checks.async_order"


def test_exactly_once_needs_the_database(own_registry: Registry) -> None:
    own_registry.router.handler("orders")(order)
    queues = {"orders": {"EFFECT": "exactly_once"}}

    assert set(found(IDEMPOTENCY={"STORE": MEMORY}, QUEUES=queues)) == {"E011"}
    assert found(QUEUES=queues) == {}
    assert found(IDEMPOTENCY={"STORE": MEMORY}) == {}


def test_a_batch_needs_a_transaction_and_the_prefetch(own_registry: Registry) -> None:
    own_registry.router.handler("orders", batch=10)(order)
    own_registry.router.handler("audit", batch=10)(async_order)

    assert set(found(QUEUES={"audit": {"BATCH": 1}})) == set()
    messages = found()
    assert (set(messages), messages["E011"].obj) == ({"E011"}, "tests.django.test_checks.async_order")
    large = {"orders": {"BATCH": 50}, "audit": {"BATCH": 1}}
    assert set(found(QUEUES=large)) == {"E010"}
    assert found(QUEUES=large | {"orders": {"BATCH": 50, "PREFETCH": 100}}) == {}
    alone = {"orders": {"EFFECT": "lease"}, "audit": {"BATCH": 1}}
    assert set(found(QUEUES=alone)) == {"E010"}


@pytest.mark.parametrize("mode", [None, "DEFERRED"])
def test_sqlite_needs_immediate_transactions(
    own_registry: Registry, database: Callable[..., None], mode: str | None
) -> None:
    database(vendor="sqlite", OPTIONS={"transaction_mode": mode} if mode else {})
    own_registry.router.handler("orders")(order)
    messages = found()

    assert set(messages) == {"E012"}
    assert messages["E012"].obj == 'DATABASES["default"]["OPTIONS"]'
    assert '"transaction_mode": "IMMEDIATE"' in str(messages["E012"].hint)
    assert found(IDEMPOTENCY={"STORE": MEMORY}) == {}
    if settings.KIND == "sqlite":
        assert found(IDEMPOTENCY={"DATABASE": "other"}) == {}


def test_databases_of_a_project_that_only_sends(
    own_registry: Registry, database: Callable[..., None]
) -> None:
    database(vendor="sqlite", OPTIONS={})

    assert found() == {}


@pytest.mark.parametrize("mode", ["immediate", "EXCLUSIVE"])
def test_sqlite_with_immediate_transactions(
    own_registry: Registry, database: Callable[..., None], mode: str
) -> None:
    database(vendor="sqlite", OPTIONS={"transaction_mode": mode})
    own_registry.router.handler("orders")(order)

    assert found() == {}


@pytest.mark.parametrize("level", [None, "repeatable read", "SERIALIZABLE"])
def test_mariadb_needs_read_committed(
    own_registry: Registry, database: Callable[..., None], level: str | None
) -> None:
    database(vendor="mysql", OPTIONS={"isolation_level": level})
    own_registry.router.handler("orders")(order)
    messages = found()

    assert set(messages) == {"E013"}
    assert '"isolation_level": "read committed"' in str(messages["E013"].hint)


@pytest.mark.parametrize("options", [{}, {"isolation_level": "READ COMMITTED"}])
def test_mariadb_with_read_committed(
    own_registry: Registry, database: Callable[..., None], options: dict[str, str]
) -> None:
    database(vendor="mysql", OPTIONS=options)
    own_registry.router.handler("orders")(order)

    assert found() == {}


def test_options_of_a_queue_without_a_handler(own_registry: Registry) -> None:
    own_registry.router.handler("orders")(order)
    messages = found(QUEUES={"orders": {}, "orderz": {}})

    assert set(messages) == {"W014"}
    assert messages["W014"].obj == 'AUTOSELL_RMQ["QUEUES"]["orderz"]'


def test_settings_of_the_database_beside_another_store() -> None:
    messages = found(IDEMPOTENCY={"STORE": MEMORY, "TTL": 60})

    assert set(messages) == {"W015"}
    assert messages["W015"].obj == 'AUTOSELL_RMQ["IDEMPOTENCY"]["TTL"]'
    assert messages["W015"].hint == 'write "OPTIONS": {"ttl": …}'


@pytest.mark.parametrize(
    ("url", "ids"),
    [
        ("amqp://guest:guest@localhost/", {"W101"}),
        ("amqp://guest:guest@rabbit.example/", {"W101", "W102"}),
        ("amqp://shop@rabbit.example/", {"W102"}),
        ("amqp://shop@10.0.0.5/", {"W102"}),
        ("amqp://shop@127.0.0.1/", set()),
        ("amqp://shop@[::1]/", set()),
        ("amqp://shop@[::1],rabbit.example,10.0.0.5/", {"W102"}),
        ("amqps://shop@rabbit.example/", set()),
        (["amqps://shop:s3cret@h1/", "amqps://shop:s3cret@h2/"], {"W105"}),
        ("amqps://shop:s3cret@rabbit.example/", {"W105"}),
        ("memory://", {"W104"}),
    ],
)
def test_the_broker_of_a_deployment(url: object, ids: set[str]) -> None:
    messages = found(deploy=True, URL=url)

    assert set(messages) == ids
    assert "s3cret" not in str(messages)
    assert found(URL=url) == {}


def test_every_host_that_is_reached_unencrypted_is_named() -> None:
    messages = found(deploy=True, URL="amqp://shop@localhost,h2:5673,10.0.0.5/")

    assert messages["W102"].msg == "password and messages go to h2, 10.0.0.5 unencrypted"


def test_a_password_of_the_environment_is_not_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqps://shop:s3cret@rabbit.example/")
    conf.get_settings.cache_clear()
    with override_settings(AUTOSELL_RMQ={}):
        assert run_checks(tags=[checks.TAG], include_deployment_checks=True) == []


def test_tls_without_verification_is_a_warning_and_an_error_for_a_deployment() -> None:
    assert set(found(ALLOW_INSECURE_TLS=True)) == {"W016"}
    messages = found(deploy=True, ALLOW_INSECURE_TLS=True)

    assert set(messages) == {"W016", "E106"}
    assert messages["E106"].is_serious()
    assert not messages["W016"].is_serious()
    assert "TLS_CA_FILE" in str(messages["E106"].hint)
    assert found(deploy=True, ALLOW_INSECURE_TLS=False) == {}


@pytest.mark.parametrize(
    ("age", "checked", "ids"),
    [(60, False, {"W103"}), (None, False, {"W103"}), (60, True, set()), (0, False, set())],
)
def test_the_connections_of_a_deployment(
    database: Callable[..., None], age: int | None, checked: bool, ids: set[str]
) -> None:
    database(alias="other", CONN_MAX_AGE=age, CONN_HEALTH_CHECKS=checked)

    assert set(found(deploy=True)) == ids
    assert found() == {}


@pytest.mark.django_db(databases="__all__")
def test_manage_py_check_shows_it() -> None:
    with override_settings(AUTOSELL_RMQ={"PREFETCH": 0}), pytest.raises(SystemCheckError) as caught:
        call_command("check", stderr=StringIO())

    assert 'AUTOSELL_RMQ["PREFETCH"]: (autosell_rmq.E003) is 0: expected' in str(caught.value)


def test_no_check_connects(monkeypatch: pytest.MonkeyPatch, own_registry: Registry) -> None:
    """Neither to a database (pytest-django refuses) nor to the broker: there is none at this address."""
    own_registry.router.handler("orders")(order)

    assert found(deploy=True, URL="amqps://shop@192.0.2.1/") == {}
