"""An app as an AsyncAPI document: valid, without the login, and true to what really travels."""

import json
from typing import Any

import pytest
import yaml

from autosell_rmq import (
    Binding,
    ConfigError,
    Message,
    MissingExtra,
    RabbitMQ,
    Router,
    asyncapi_document,
    asyncapi_json,
    asyncapi_yaml,
)
from autosell_rmq.codec import DeadLetterReason, envelope, error_reply, success_reply
from tests.support.asyncapi import accepts, problems, references, resolved
from tests.support.documented_shop import SECRET, URL, OrderCreated, documented_shop

MEMORY = "memory://nobody-connects"


def document_of(rmq: RabbitMQ) -> dict[str, Any]:
    return asyncapi_document(rmq, title="Shop", version="1.4.0", description="Orders.")


@pytest.fixture
def document() -> dict[str, Any]:
    return document_of(documented_shop())


def operation(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = document["operations"][name]
    return found


def payload(document: dict[str, Any], message: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = resolved(document, message["$ref"])["payload"]
    return found


async def ignored(event: dict[str, object]) -> None: ...


# --- as a whole ----------------------------------------------------------------------------------------


def test_it_is_valid(document: dict[str, Any]) -> None:
    assert problems(document) == []


@pytest.mark.parametrize(
    "url",
    [
        MEMORY,
        "memory://",
        "amqp://localhost/",
        "amqps://u:p@[::1]/a%2Fb",
        "amqp://u:p@rabbit/%7Bvhost%7D",
    ],
)
def test_it_is_valid_wherever_the_broker_is(url: str) -> None:
    assert problems(document_of(documented_shop(url))) == []


def test_an_app_without_handlers_has_a_document_too() -> None:
    document = document_of(RabbitMQ(MEMORY))

    assert problems(document) == []
    assert document["operations"] == {}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = list(references(document))

    assert len(found) > 50
    assert all(resolved(document, reference) for reference in found)


def test_messages_of_an_operation_are_messages_of_its_channel(document: dict[str, Any]) -> None:
    for found in document["operations"].values():
        for part in (found, *([found["reply"]] if "reply" in found else [])):
            prefix = f"{part['channel']['$ref']}/messages/"
            assert all(message["$ref"].startswith(prefix) for message in part["messages"])


def test_it_shows_no_login(document: dict[str, Any]) -> None:
    text = asyncapi_json(document)

    assert document["servers"]["broker"]["host"] == "rabbit.internal:5673"
    assert SECRET not in text
    assert "shopkeeper" not in text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (URL, ("amqp", "rabbit.internal:5673", "/shop")),
        ("amqps://u:p@rabbit", ("amqps", "rabbit:5671", "/")),
        ("amqp://u:p@[::1]/a%2Fb", ("amqp", "[::1]:5672", "/a%2Fb")),
        ("memory://tests", ("memory", "tests", None)),
        ("memory://", ("memory", "localhost", None)),
    ],
)
def test_the_server_is_where_the_broker_is(url: str, expected: tuple[str, str, str | None]) -> None:
    server = document_of(RabbitMQ(url))["servers"]["broker"]

    assert (server["protocol"], server["host"], server.get("pathname")) == expected


def test_it_is_the_same_each_time() -> None:
    assert asyncapi_json(document_of(documented_shop())) == asyncapi_json(document_of(documented_shop()))


def test_yaml_says_the_same_as_json_and_has_no_aliases(document: dict[str, Any]) -> None:
    text = asyncapi_yaml(document)

    assert yaml.safe_load(text) == json.loads(asyncapi_json(document)) == document
    assert "&id" not in text


def test_yaml_without_pyyaml_is_one_line_of_advice(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)

    with pytest.raises(MissingExtra, match=r"pip install 'autosell-rmq\[fastapi\]'"):
        asyncapi_yaml(document)


# --- handlers ------------------------------------------------------------------------------------------


def test_a_handler_receives_from_its_queue(document: dict[str, Any]) -> None:
    found = operation(document, "orders.receive")
    channel = resolved(document, found["channel"]["$ref"])

    assert found["action"] == "receive"
    assert channel["address"] == "orders"
    assert channel["bindings"]["amqp"]["queue"] == {
        "name": "orders",
        "durable": True,
        "exclusive": False,
        "autoDelete": False,
        "vhost": "shop",
    }
    assert channel["x-autosell-rmq"]["arguments"]["x-dead-letter-routing-key"] == "orders_dlq"
    assert payload(document, found["messages"][0]) == {"$ref": "#/components/schemas/Order"}


def test_a_docstring_is_summary_and_description(document: dict[str, Any]) -> None:
    found = operation(document, "orders.receive")

    assert found["summary"] == "Create an order and reserve its stock."
    assert found["description"].startswith("Sent again with the same")
    assert found["description"].endswith("``prices``.")
    assert "summary" not in operation(document, "legacy.receive")


def test_a_first_paragraph_of_two_lines_is_one_summary() -> None:
    async def handler(payload: dict[str, object]) -> None: ...

    handler.__doc__ = "Take an order\n    and keep it.\n\n    More."
    rmq = RabbitMQ(MEMORY)
    rmq.handler("orders")(handler)
    found = operation(document_of(rmq), "orders.receive")

    assert (found["summary"], found["description"]) == ("Take an order and keep it.", "More.")


def test_how_messages_are_handled_is_an_extension(document: dict[str, Any]) -> None:
    assert operation(document, "orders.receive")["x-autosell-rmq"] == {
        "handler": f"{documented_shop.__module__}.documented_shop.<locals>.create_order",
        "dead_letter_queue": "orders_dlq",
        "prefetch": 50,
        "timeout": 90,
        "max_retries": 5,
        "retry_delay": 1.0,
        "max_retry_delay": 60.0,
        "idempotency_key": "correlation_id",
        "on_conflict": "first_result",
    }
    assert operation(document, "audit_log_2.receive")["x-autosell-rmq"]["single_active_consumer"] is True
    assert operation(document, "legacy.receive")["x-autosell-rmq"]["max_priority"] == 5


def test_a_key_of_ones_own_is_called_by_its_name() -> None:
    def by_order(message: Message) -> str | None:
        return None

    class Keys:
        def __call__(self, message: Message) -> str | None:
            return None

    rmq = RabbitMQ(MEMORY)
    rmq.handler("orders", idempotency_key=by_order)(ignored)
    rmq.handler("returns", idempotency_key=Keys())(ignored)
    document = document_of(rmq)

    assert operation(document, "orders.receive")["x-autosell-rmq"]["idempotency_key"].endswith("by_order")
    assert operation(document, "returns.receive")["x-autosell-rmq"]["idempotency_key"] == "Keys"


def test_a_queue_that_is_taken_as_it_stands_has_no_arguments() -> None:
    rmq = RabbitMQ(MEMORY)
    rmq.handler("orders", declare=False, arguments={"x-max-length": 5})(ignored)

    assert "x-autosell-rmq" not in document_of(rmq)["channels"]["orders"]


def test_arguments_that_json_has_no_type_for_do_no_harm() -> None:
    rmq = RabbitMQ(MEMORY)
    rmq.handler("orders", arguments={"x-own": 1j, "x-bytes": b"\xff", "x-many": {"a": (1, 2.5)}})(ignored)
    arguments = json.loads(asyncapi_json(document_of(rmq)))["channels"]["orders"]["x-autosell-rmq"][
        "arguments"
    ]

    assert arguments["x-own"] == "1j"
    assert arguments["x-bytes"] == "_w=="
    assert arguments["x-many"] == {"a": [1, 2.5]}


# --- replies -------------------------------------------------------------------------------------------


def test_real_replies_are_of_the_schema_of_the_reply(document: dict[str, Any]) -> None:
    reply = operation(document, "orders.receive")["reply"]
    success, error = (payload(document, message) for message in reply["messages"])
    result = {"number": 7, "total": {"amount": "1", "currency": "EUR"}, "label": "order 7"}
    real = json.loads(success_reply(json.dumps(result).encode(), "c-1"))
    failed = json.loads(error_reply("ValueError: no", DeadLetterReason.REJECTED.value, None))

    assert accepts(document, success, real)
    assert not accepts(document, success, {**real, "data": {"number": 0}})
    assert accepts(document, error, failed)
    # One, and only one, of the messages fits.
    assert not accepts(document, success, failed)
    assert not accepts(document, error, real)


def test_the_reply_goes_where_the_request_says(document: dict[str, Any]) -> None:
    found = operation(document, "orders.receive")
    reply = found["reply"]
    headers = resolved(document, resolved(document, found["messages"][0]["$ref"])["headers"]["$ref"])

    assert reply["address"]["location"] == "$message.header#/reply_to"
    assert "reply_to" in headers["properties"]
    assert resolved(document, reply["channel"]["$ref"])["address"] is None


def test_a_handler_without_a_result_answers_with_null(document: dict[str, Any]) -> None:
    rmq = RabbitMQ(MEMORY)
    rmq.handler("orders")(ignored)
    document = document_of(rmq)
    reply = operation(document, "orders.receive")["reply"]

    success = payload(document, reply["messages"][0])
    real = json.loads(success_reply(b"null", "c-1"))
    failed = json.loads(error_reply("ValueError: no", DeadLetterReason.REJECTED.value, "c-1"))

    assert accepts(document, success, real)
    assert not accepts(document, success, failed)


def test_nobody_waits_for_the_reply_to_an_event() -> None:
    async def answering(event: dict[str, object]) -> OrderCreated:
        raise NotImplementedError

    rmq = RabbitMQ(MEMORY)
    rmq.handler("audit", bind=Binding("events", "#"))(ignored)
    rmq.handler("both", bind=Binding("events", "#"))(answering)
    document = document_of(rmq)

    assert "reply" not in operation(document, "audit.receive")
    assert "reply" in operation(document, "both.receive")


# --- dead letters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b'{"n": 1}', b"\xff"])
def test_a_real_dead_letter_is_of_its_schema(document: dict[str, Any], body: bytes) -> None:
    found = operation(document, "orders.dead_letter")
    letter = envelope(
        Message(queue="orders", body=body), DeadLetterReason.INVALID_JSON, "no", attempts=0, error_type=None
    )
    schema = payload(document, found["messages"][0])

    assert found["action"] == "send"
    assert resolved(document, found["channel"]["$ref"])["address"] == "orders_dlq"
    assert accepts(document, schema, json.loads(letter))
    assert sorted(resolved(document, schema["$ref"])["properties"]) == sorted(json.loads(letter))


def test_queues_may_share_a_dlq(document: dict[str, Any]) -> None:
    ours, theirs = (operation(document, f"{queue}.dead_letter") for queue in ("orders", "legacy"))

    assert ours["channel"] == theirs["channel"]
    assert theirs["x-autosell-rmq"] == {"dead_letters_of": "legacy"}


@pytest.mark.parametrize("first", ["orders", "orders_dlq"])
def test_a_dlq_may_have_a_handler(first: str) -> None:
    rmq = RabbitMQ(MEMORY)
    for queue in sorted(("orders", "orders_dlq"), key=lambda queue: queue != first):
        rmq.handler(queue)(ignored)
    document = document_of(rmq)
    channel = document["channels"]["orders_dlq"]

    assert problems(document) == []
    assert sorted(channel["messages"]) == ["dead_letter", "orders_dlq.request"]
    assert channel["x-autosell-rmq"]["arguments"]["x-dead-letter-routing-key"] == "orders_dlq_dlq"


# --- events --------------------------------------------------------------------------------------------


def test_a_binding_is_a_channel_of_its_own(document: dict[str, Any]) -> None:
    found = operation(document, "audit_log_2.receive.shop.events.order._")
    channel = resolved(document, found["channel"]["$ref"])
    fanout = operation(document, "audit_log_2.receive.shop.news")

    assert found["x-autosell-rmq"] == {"queue": "audit log/2"}
    assert channel["address"] == "order.*"
    assert channel["bindings"]["amqp"]["exchange"] == {
        "name": "shop.events",
        "type": "topic",
        "durable": True,
        "autoDelete": False,
        "vhost": "shop",
    }
    assert resolved(document, fanout["channel"]["$ref"])["address"] is None


def test_arguments_of_a_binding_are_told() -> None:
    rmq = RabbitMQ(MEMORY)
    rmq.handler("audit", bind=Binding("events", "", "headers", {"x-match": "all", "kind": "order"}))(ignored)
    found = operation(document_of(rmq), "audit.receive.events")

    assert found["x-autosell-rmq"]["arguments"] == {"x-match": "all", "kind": "order"}


def test_a_declared_event_is_sent(document: dict[str, Any]) -> None:
    found = operation(document, "shop.events.order.created.send")

    assert found["action"] == "send"
    assert found["summary"] == "Its stock is reserved."
    assert resolved(document, found["channel"]["$ref"])["address"] == "order.created"
    schema = payload(document, found["messages"][0])
    assert accepts(document, schema, {"number": 1, "total": {"amount": "1"}, "label": "order 1"})
    assert not accepts(document, schema, {"number": 1, "total": {"amount": "1"}})  # what is sent has all


def test_an_event_may_come_back_to_a_handler_of_the_app() -> None:
    rmq = RabbitMQ(MEMORY)
    rmq.publishes("events", "order.created", OrderCreated)
    rmq.handler("audit", bind=Binding("events", "order.created"))(ignored)
    document = document_of(rmq)

    assert problems(document) == []
    assert len(document["channels"]["events.order.created"]["messages"]) == 2


def test_events_are_included_with_their_router() -> None:
    inner, outer, rmq = Router(), Router(), RabbitMQ(MEMORY)
    inner.publishes("events", "order.created", OrderCreated)
    outer.include(inner)
    rmq.include(outer, queues=())
    rmq.include(outer)

    assert rmq.events == inner.events
    assert [event.routing_key for event in rmq.events] == ["order.created"]


def test_an_event_has_one_payload() -> None:
    router = Router()
    router.publishes("events", "order.created", OrderCreated)
    router.publishes("events", "order.created", OrderCreated)

    with pytest.raises(ConfigError, match=r"'order\.created' of exchange 'events' is declared twice"):
        router.publishes("events", "order.created", dict)
    with pytest.raises(ConfigError, match="exchange"):
        router.publishes("", "order.created", dict)
    assert len(router.events) == 1


# --- names ---------------------------------------------------------------------------------------------


def test_names_that_make_the_same_id_stay_apart() -> None:
    rmq = RabbitMQ(MEMORY)
    for queue in ("a/b", "a b", "a_b", "error_reply", "replies", "dead_letter"):
        rmq.handler(queue)(ignored)
    rmq.publishes("a", "b", OrderCreated)
    rmq.publishes("a.b", "", OrderCreated, exchange_type="fanout")
    rmq.publishes("error_reply", "", OrderCreated)
    document = document_of(rmq)

    assert problems(document) == []
    addresses = [channel["address"] for channel in document["channels"].values()]
    assert {"a/b", "a b", "a_b", "replies"} <= set(addresses)
    assert len(document["operations"]) == 6 * 2 + 3
    for name in ("a/b", "a b", "a_b"):
        [found] = [o for o in document["operations"].values() if o.get("summary") is None and name in str(o)][
            :1
        ]
        assert resolved(document, found["channel"]["$ref"])["address"] in {"a/b", "a b", "a_b"}
