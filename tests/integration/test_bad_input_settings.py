"""Wrong settings: each is refused where it is written, in one line that names it and says what to write."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from autosell_rmq import (
    Binding,
    ConfigError,
    Message,
    RabbitMQ,
    RabbitMQConsumer,
    RabbitMQProducer,
    RetryLater,
    Router,
    Settings,
    SyncRabbitMQProducer,
)

URLS = [
    ("   ", "empty"),
    ("localhost", "no scheme"),
    ("localhost:5672", "starts with localhost://"),
    ("http://localhost/", "starts with http://"),
    ("AMQPS+x://localhost/", "starts with amqps+x://"),
    ("amqp://", "no host"),
    ("amqp:///vhost", "no host"),
    ("amqp://guest:guest@:5672/", "no host"),
    ("amqp://localhost:abc/", "port a number"),
    ("amqp://localhost:70000/", "port a number"),
    ("amqp://[::1/", "cannot be read"),
    ("amqp://localhost/a/b", "%2F"),
    ("amqp://u:p#x@localhost/", "# is %23"),
    ("amqp://localhost/#x", "%23"),
    ("amqp://one:5672,two:abc/", "port a number"),
    ("amqp://one,,two/", "no host"),
    ("amqp://one,two,", "no host"),
    ("amqp://[::1],[::2/", "cannot be read"),
    ("amqp://one/,two/", "%2F"),
    ("amqp://one/,two", "%2C"),
    ("amqp://u:p@one,u:p@two/", "the login stands once"),
    ("amqp://one/,amqps://two/", "differ in their scheme"),
    ("amqp://a@one/,amqp://b@two/", "differ in their user"),
    ("amqp://a:p@one/,amqp://a:q@two/", "differ in their password"),
    ("amqp://a:p@one/,amqp://two/", "differ in their user"),
    ("amqp://one/x,amqp://two/y", "differ in their vhost"),
    ("amqp://one/,amqp://two/?heartbeat=5", "differ in their heartbeat"),
    ("amqp://one/?name=x,amqp://two/?name=y", "differ in their name"),
    ("memory://one,memory://two", "differ in their name"),
    ("amqp://one/,http://two/", "starts with http://"),
    ("amqp://localhost/?heartbeat=0", "from 1 to 3600"),
    ("amqp://localhost/?heartbeat=soon", "from 1 to 3600"),
    ("amqp://localhost/?heartbeat=99999", "from 1 to 3600"),
    ("amqp://localhost/?heartbeat=²", "from 1 to 3600"),
    ("amqps://localhost/?no_verify_ssl=1", "the setting is allow_insecure_tls"),
    ("amqps://localhost/?verify=0", "the setting is allow_insecure_tls"),
    ("amqps://localhost/?cafile=/etc/passwd", "use tls_ca_file="),
    ("amqps://localhost/?keyfile=/etc/passwd", "use tls_key_file="),
    ("amqp://localhost/?auth=external", "PLAIN"),
    ("amqp://localhost/?timeout=3", "connect_timeout="),
    ("amqp://localhost/?reconnect_interval=0", "built in"),
    ("amqp://localhost/?colour=red", "not known"),
    ("amqp://localhost/?heartbeat=1&x=y", "'x'"),
]

SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"prefetch": 0}, "prefetch=0: expected a whole number from 1 to 65535"),
    ({"prefetch": 65_536}, "from 1 to 65535"),
    ({"prefetch": "20"}, "prefetch='20'"),
    ({"prefetch": True}, "prefetch=True"),
    ({"prefetch": 1.5}, "prefetch=1.5"),
    ({"max_retries": -1}, "max_retries=-1: expected a whole number >= 0"),
    ({"max_retries": None}, "max_retries=None"),
    ({"threads": 0}, "threads=0: expected a whole number >= 1"),
    ({"heartbeat": 0}, "heartbeat=0"),
    ({"heartbeat": 10.5}, "heartbeat=10.5"),
    ({"connect_timeout": 0}, "connect_timeout=0: expected a number of seconds > 0"),
    ({"startup_timeout": -1}, "startup_timeout=-1"),
    ({"publish_timeout": "10"}, "publish_timeout='10'"),
    ({"outage_timeout": -1}, "outage_timeout=-1"),
    ({"max_waiting": -1}, "max_waiting=-1"),
    ({"max_waiting_bytes": 1.5}, "max_waiting_bytes=1.5"),
    ({"handler_timeout": float("inf")}, "handler_timeout=inf"),
    ({"drain_timeout": float("nan")}, "drain_timeout=nan"),
    ({"busy_timeout": None}, "busy_timeout=None"),
    ({"retry_delay": 0}, "retry_delay=0"),
    ({"retry_delay": dt.timedelta(seconds=1)}, "retry_delay="),
    ({"retry_delay": 61.0}, "retry_delay=61 is over max_retry_delay=60"),
    ({"max_retry_delay": True}, "max_retry_delay=True"),
    ({"backoff": 0}, "backoff=0"),
    ({"max_backoff": -5}, "max_backoff=-5"),
    ({"max_body_bytes": 0}, "max_body_bytes=0"),
    ({"max_header_bytes": 2.5}, "max_header_bytes=2.5"),
    ({"reply_to_allowed": "replies.*"}, "reply_to_allowed='replies.*': expected a list"),
    ({"reply_to_allowed": [""]}, "reply_to_allowed=['']: expected a list of non-empty strings"),
    ({"reply_to_allowed": [5]}, "reply_to_allowed=[5]"),
    ({"reply_to_allowed": {"replies.*"}}, "reply_to_allowed={'replies.*'}"),
    ({"queue_type": "stream"}, "expected one of 'quorum', 'classic'"),
    ({"queue_type": "Quorum"}, "queue_type='Quorum'"),
    ({"prefetch_count": 5}, "unknown setting prefetch_count"),
]

OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"prefetch": 0}, "prefetch=0"),
    ({"max_retries": 1.0}, "max_retries=1.0"),
    ({"timeout": 0}, "timeout=0"),
    ({"dlq": ""}, "dlq='': expected a non-empty string"),
    ({"dlq": "orders"}, "queue and dlq are both 'orders'"),
    ({"dlq": 5}, "dlq=5"),
    ({"retry_delay": -1}, "retry_delay=-1"),
    ({"max_priority": 0}, "max_priority=0: expected a whole number from 1 to 255"),
    ({"max_priority": 256}, "max_priority=256"),
    ({"queue_type": "lazy"}, "queue_type='lazy'"),
    ({"on_conflict": "ignore"}, "expected one of 'first_result', 'reject'"),
    ({"idempotency_key": "order_id"}, "expected one of 'correlation_id', 'message_id'"),
    ({"bind": ["events"]}, "expected Binding(exchange, routing_key)"),
    ({"max_retrys": 5}, "unknown option max_retrys; known are"),
]

NAMES = [
    ("", "non-empty"),
    (None, "non-empty"),
    (5, "queue=5"),
    ("x" * 256, "256 bytes long"),
    ("\ud800", "Unicode"),
]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RABBITMQ_URL", "QUEUE_NAME", "DLQ_NAME", "MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)


def refusal(wrong: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as refused:
        wrong()
    assert "\n" not in str(refused.value)
    return str(refused.value)


async def handler(payload: object) -> None: ...


@pytest.mark.parametrize(("url", "said"), URLS)
def test_a_wrong_url_is_refused_by_every_face(url: str, said: str) -> None:
    faces: list[Callable[[str], object]] = [
        RabbitMQ,
        RabbitMQConsumer,
        RabbitMQProducer,
        SyncRabbitMQProducer,
        lambda url: Settings(url=url),
    ]

    assert len({refusal(lambda face=face: face(url)) for face in faces}) == 1  # type: ignore[misc]
    assert said in refusal(lambda: Settings(url=url))


def test_an_empty_url_counts_as_left_out() -> None:
    """As an environment variable that is set to nothing."""
    assert str(RabbitMQ("").settings.broker_url) == "amqp://guest:***@localhost:5672"


@pytest.mark.parametrize(("settings", "said"), SETTINGS, ids=str)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, Any], said: str) -> None:
    assert said in refusal(lambda: RabbitMQ(**settings))
    if "max_retries" not in settings:
        assert said in refusal(lambda: RabbitMQProducer(**settings))
        assert said.removeprefix("unknown setting ") in refusal(
            lambda: RabbitMQConsumer(**settings)
        ).removeprefix("unknown setting ")


@pytest.mark.parametrize(("options", "said"), OPTIONS, ids=str)
def test_a_wrong_option_is_refused_where_it_is_written(options: dict[str, Any], said: str) -> None:
    assert said in refusal(lambda: Router().handler("orders", **options))
    assert said in refusal(lambda: RabbitMQ().handler("orders", **options))


@pytest.mark.parametrize(("name", "said"), NAMES, ids=ascii)
def test_a_queue_that_rabbitmq_cannot_have_is_refused(name: str, said: str) -> None:
    assert said in refusal(lambda: Router().handler(name))


def bound(**arguments: object) -> Callable[[], object]:
    return lambda: Binding(**cast("Any", arguments))


def decorated(function: object) -> Callable[[], object]:
    return lambda: Router().handler("orders")(cast("Any", function))


def two_handlers() -> None:
    router = Router()
    router.handler("orders")(handler)
    router.handler("orders")(handler)


def no_parameter() -> None: ...
def three_parameters(payload: object, message: Message, session: object) -> None: ...
def two_messages(payload: object, a: Message, b: Message) -> None: ...
def unresolved(payload: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def generator(payload: object) -> Iterator[object]:
    yield payload


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (bound(exchange=""), "Binding(exchange)=''"),
        (bound(exchange="e", routing_key="x" * 256), "255 bytes"),
        (bound(exchange="e", exchange_type="queue"), "exchange_type"),
        (decorated("not a function"), "a handler is a function"),
        (decorated(no_parameter), "no parameter for the payload"),
        (decorated(three_parameters), "nothing fits the parameter 'session'"),
        (decorated(two_messages), "one parameter is annotated as Message"),
        (decorated(unresolved), "cannot be resolved"),
        (decorated(generator), "a generator cannot handle messages"),
        (two_handlers, "has two handlers"),
        (lambda: RabbitMQConsumer(queue_name="a", dlq_name="a"), "queue and dlq are both 'a'"),
        (lambda: RabbitMQConsumer(max_retries=-1), "max_retries=-1"),
        (lambda: RabbitMQConsumer(colour=1), "unknown option colour"),  # type: ignore[call-arg]
        (lambda: RabbitMQConsumer().set_message_handler(no_parameter), "it has no parameter for the payload"),
        (lambda: RetryLater(delay=-1), "a number of seconds >= 0"),
        (lambda: RetryLater(delay=float("nan")), "RetryLater(delay=nan)"),
        (lambda: RetryLater(delay=float("inf")), "RetryLater(delay=inf)"),
        (lambda: RetryLater(delay=cast("Any", "5")), "RetryLater(delay='5')"),
    ],
)
def test_what_else_can_be_written_wrong(wrong: Callable[[], object], said: str) -> None:
    assert said in refusal(wrong)


WRONG_TOO: dict[str, Callable[[], object]] = {
    "url=5": lambda: RabbitMQ(cast("Any", 5)),
    "url=bytes": lambda: RabbitMQ(cast("Any", b"amqp://localhost/")),
    "declare='no'": lambda: Router().handler("orders", declare=cast("Any", "no")),
    "single_active_consumer='yes'": lambda: Router().handler(
        "orders", single_active_consumer=cast("Any", "yes")
    ),
    "consumer_priority='high'": lambda: Router().handler("orders", consumer_priority=cast("Any", "high")),
    "arguments='x'": lambda: Router().handler("orders", arguments=cast("Any", "x")),
    "bind=5": lambda: Router().handler("orders", bind=cast("Any", 5)),
    "retry_delay='1'": lambda: Router().handler("orders", retry_delay=cast("Any", "1")),
    "retry_delay over max_retry_delay": lambda: Router().handler(
        "orders", retry_delay=100.0, max_retry_delay=5.0
    ),
    "a queue name that the client library refuses": lambda: Router().handler("заказы"),
    "a queue of the delay line": lambda: Router().handler("autosell.delay.1s"),
    "its exchange": lambda: Router().handler("autosell.home"),
    "a DLQ of the delay line": lambda: Router().handler("orders", dlq="autosell.homeless"),
    "an exchange of the delay line": lambda: Binding("autosell.delay.1s"),
    "the exchange of the homeless": lambda: Binding("autosell.homeless"),
    "an exchange name over 127 characters": lambda: Binding("x" * 128),
    "a routing key that is no Unicode": lambda: Binding("events", "\ud800"),
}


@pytest.mark.parametrize("wrong", WRONG_TOO.values(), ids=WRONG_TOO.keys())
def test_values_of_another_kind_are_refused(wrong: Callable[[], object]) -> None:
    refusal(wrong)


@pytest.mark.parametrize("value", ["three", "-1", "1.5", "²", "0x10", " "])
def test_a_wrong_environment_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MAX_RETRIES", value)

    said = refusal(RabbitMQ)
    assert f"environment variable MAX_RETRIES={value!r}: expected a whole number >= 0" in said
    assert said == refusal(RabbitMQConsumer)


def test_a_wrong_url_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "localhost:5672")

    for face in (RabbitMQ, RabbitMQConsumer, RabbitMQProducer, SyncRabbitMQProducer):
        assert "amqp://, amqps:// or memory://" in refusal(face)
