"""Handlers collected by queue: the decorator, including, and where an option comes from."""

import functools

import pytest

from autosell_rmq import Binding, ConfigError, RabbitMQ, Router, Settings

NO_BROKER = "memory://nobody-connects"


async def first(payload: dict[str, object]) -> None: ...


async def second(payload: dict[str, object]) -> None: ...


def test_the_decorator_returns_the_very_function() -> None:
    assert Router().handler("orders")(first) is first
    assert RabbitMQ(NO_BROKER).handler("orders")(first) is first


def test_a_queue_has_one_handler_and_the_error_names_both() -> None:
    router = Router()
    router.handler("orders")(first)

    with pytest.raises(ConfigError, match=r"'orders'.*test_router\.first.*test_router\.second"):
        router.handler("orders")(second)
    assert len(router) == 1


def test_one_function_may_handle_several_queues() -> None:
    router = Router()
    router.handler("orders")(first)
    router.handler("returns")(first)

    assert [entry.queue for entry in router] == ["orders", "returns"]


def test_the_same_function_twice_for_one_queue_is_an_error_too() -> None:
    router = Router()
    router.handler("orders")(first)

    with pytest.raises(ConfigError, match="two handlers"):
        router.handler("orders")(first)


def test_including_a_router_twice_changes_nothing() -> None:
    router = Router()
    router.handler("orders")(first)
    app = RabbitMQ(NO_BROKER)
    app.include(router)
    app.include(router)

    assert [entry.queue for entry in app.handlers] == ["orders"]


def test_one_router_serves_several_apps() -> None:
    router = Router()
    router.handler("orders", max_retries=7)(first)
    apps = [RabbitMQ(NO_BROKER, prefetch=prefetch) for prefetch in (1, 2)]
    for app in apps:
        app.include(router)

    options = [app.handlers[0].options(app.settings) for app in apps]
    assert [(o.max_retries, o.prefetch) for o in options] == [(7, 1), (7, 2)]


def test_two_routers_with_one_queue_are_refused_by_name() -> None:
    one, other = Router(), Router()
    one.handler("orders")(first)
    other.handler("orders")(second)
    app = RabbitMQ(NO_BROKER)
    app.include(one)

    with pytest.raises(ConfigError, match=r"'orders'.*first.*second"):
        app.include(other)


def test_a_routers_and_an_apps_own_handler_for_one_queue_are_refused() -> None:
    router = Router()
    router.handler("orders")(first)
    app = RabbitMQ(NO_BROKER)
    app.handler("orders")(second)

    with pytest.raises(ConfigError, match=r"'orders'.*second.*first"):
        app.include(router)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_retry": 1}, "max_retry"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"max_retries": True}, "max_retries=True"),
        ({"prefetch": 0}, "prefetch=0"),
        ({"timeout": 0}, "timeout=0"),
        ({"queue_type": "stream"}, "queue_type='stream'"),
        ({"max_priority": 256}, "max_priority=256"),
        ({"on_conflict": "ignore"}, "on_conflict='ignore'"),
        ({"idempotency_key": "id"}, "idempotency_key='id'"),
        ({"bind": ["events"]}, "bind='events'"),
        ({"dlq": "orders"}, "queue and dlq are both 'orders'"),
        ({"dlq": ""}, "dlq=''"),
    ],
)
def test_a_wrong_option_is_told_where_it_is_written(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Router().handler("orders", **options)  # type: ignore[arg-type]
    assert named in str(raised.value)


@pytest.mark.parametrize("queue", ["", "q" * 256, "я" * 128, None])
def test_a_name_that_no_queue_can_have_is_refused(queue: str) -> None:
    with pytest.raises(ConfigError, match="queue"):
        Router().handler(queue)


def test_an_option_comes_from_the_handler_else_from_the_app_else_is_the_default() -> None:
    app = RabbitMQ(NO_BROKER, max_retries=9, prefetch=3, handler_timeout=7.0, queue_type="classic")
    app.handler("plain")(first)
    app.handler("own", max_retries=0, prefetch=50, timeout=1.0, queue_type="quorum", dlq="dead")(second)

    plain, own = (entry.options(app.settings) for entry in app.handlers)

    assert (plain.max_retries, plain.prefetch, plain.timeout, plain.queue_type, plain.dlq) == (
        (9, 3, 7.0, "classic", "plain_dlq")
    )
    assert (own.max_retries, own.prefetch, own.timeout, own.queue_type, own.dlq) == (
        (0, 50, 1.0, "quorum", "dead")
    )
    defaults = Settings()
    assert (plain.retry_delay, plain.max_retry_delay) == (defaults.retry_delay, defaults.max_retry_delay)


def test_a_retry_delay_over_the_apps_cap_lifts_the_cap() -> None:
    app = RabbitMQ(NO_BROKER)
    app.handler("slow", retry_delay=300.0)(first)

    assert app.handlers[0].options(app.settings).max_retry_delay == 300.0


def test_events_are_known_by_their_message_id_requests_by_their_correlation_id() -> None:
    app = RabbitMQ(NO_BROKER)
    app.handler("requests")(first)
    app.handler("events", bind=Binding("shop", "order.*"))(first)
    app.handler("chosen", bind=[Binding("shop"), Binding("bank")], idempotency_key="correlation_id")(first)

    options = [entry.options(app.settings) for entry in app.handlers]
    assert [o.idempotency_key for o in options] == ["correlation_id", "message_id", "correlation_id"]
    assert [len(o.bind) for o in options] == [0, 1, 2]


def test_max_retries_and_url_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_RETRIES", "11")
    monkeypatch.setenv("RABBITMQ_URL", "memory://from-environment")
    app = RabbitMQ()
    app.handler("plain")(first)
    app.handler("own", max_retries=2)(second)

    assert [entry.options(app.settings).max_retries for entry in app.handlers] == [11, 2]
    assert app.settings.url == "memory://from-environment"
    assert RabbitMQ(NO_BROKER, max_retries=4).settings.max_retries == 4
    assert RabbitMQ(NO_BROKER).settings.url == NO_BROKER


@pytest.mark.parametrize("value", ["three", "-1", "1.5", "²"])
def test_a_max_retries_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MAX_RETRIES", value)
    with pytest.raises(ConfigError, match=f"MAX_RETRIES='{value}'"):
        RabbitMQ(NO_BROKER)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_RETRIES", "")
    assert RabbitMQ(NO_BROKER).settings.max_retries == Settings().max_retries


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"prefetc": 1}, "prefetc"),
        ({"prefetch": 70_000}, "prefetch=70000"),
        ({"heartbeat": 0}, "heartbeat=0"),
        ({"drain_timeout": float("nan")}, "drain_timeout=nan"),
        ({"publish_timeout": float("inf")}, "publish_timeout=inf"),
        ({"retry_delay": 90.0}, "retry_delay=90"),
        ({"threads": 0}, "threads=0"),
        ({"redact": "text"}, "redact='text'"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as raised:
        RabbitMQ(NO_BROKER, **settings)  # type: ignore[arg-type]
    assert named in str(raised.value)


def test_a_wrapped_function_is_named_by_what_it_wraps() -> None:
    @functools.wraps(first)
    async def wrapper(payload: dict[str, object]) -> None: ...

    router = Router()
    router.handler("orders")(wrapper)

    assert next(iter(router)).handler.name.endswith("test_router.first")
