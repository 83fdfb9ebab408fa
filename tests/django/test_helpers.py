"""autosell_rmq_django.test: the project's handlers in a test's own thread and transaction."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.signals import setting_changed
from django.db import connection, connections, transaction
from django.http import HttpRequest, JsonResponse
from django.test import Client, TestCase, TransactionTestCase, override_settings
from django.urls import path

from autosell_rmq import Binding, ConfigError, Message, Next, PublishUnroutable, Reject, ReplyTimeout
from autosell_rmq.pipeline import waiting
from autosell_rmq_django import conf, producer, signals
from autosell_rmq_django.models import IdempotencyRecord, OutboxMessage
from autosell_rmq_django.publishing import DjangoProducer
from autosell_rmq_django.registry import Registry
from autosell_rmq_django.test import RabbitMQTester, RabbitMQTestMixin
from tests.django.handler_fixtures import own_registry
from tests.django.shop.models import Effect

__all__ = ["own_registry"]

pytestmark = pytest.mark.django_db

type Decorator = Callable[[Callable[..., object]], Callable[..., object]]
type Handler = Callable[..., Decorator]


@pytest.fixture
def handler(own_registry: Registry) -> Handler:
    """Registers handlers of the project of this test; before `RabbitMQTester` is entered."""
    return own_registry.router.handler


@pytest.fixture
def rmq(handler: Handler) -> Iterator[RabbitMQTester]:
    """With the handlers that most tests need."""

    @handler("orders", max_retries=2)
    def order(data: dict[str, str], message: Message) -> dict[str, object]:
        Effect.objects.create(key=data["key"], note=str(message.attempt))
        if data.get("fail"):
            raise ValueError(data["fail"])
        if data.get("refuse"):
            raise Reject(data["refuse"])
        return {"thread": threading.get_ident(), "attempt": message.attempt}

    @handler("slow")
    async def slow(data: dict[str, str]) -> str:
        await Effect.objects.acreate(key=data["key"], note="async")
        return data["key"]

    with RabbitMQTester() as rmq:
        yield rmq


def keys() -> list[str]:
    return list(Effect.objects.order_by("id").values_list("key", flat=True))


# --- deliver ---------------------------------------------------------------------------------------------


def test_a_sync_handler_runs_in_the_tests_thread_and_transaction(rmq: RabbitMQTester) -> None:
    Effect.objects.create(key="before")

    reply = rmq.deliver("orders", {"key": "a"})

    assert reply["success"]
    assert reply["data"] == {"thread": threading.get_ident(), "attempt": 1}
    assert keys() == ["before", "a"]
    record = IdempotencyRecord.objects.get()
    assert (record.queue, record.correlation_id, record.state) == ("orders", reply["correlation_id"], "done")
    assert connection.in_atomic_block


def test_an_async_handler_writes_in_the_tests_transaction(rmq: RabbitMQTester) -> None:
    Effect.objects.create(key="before")

    assert rmq.deliver("slow", {"key": "b"})["data"] == "b"

    assert keys() == ["before", "b"]
    assert IdempotencyRecord.objects.get().queue == "slow"


def test_a_duplicate_gets_the_stored_reply(rmq: RabbitMQTester) -> None:
    first = rmq.deliver("orders", {"key": "a"}, correlation_id="one")
    second = rmq.deliver("orders", {"key": "changed"}, correlation_id="one")

    assert second == first
    assert keys() == ["a"]


def test_retries_take_no_time_and_a_failure_is_seen_everywhere(rmq: RabbitMQTester) -> None:
    reply = rmq.deliver("orders", {"key": "a", "fail": "no lamp"})

    assert (reply["success"], reply["error_code"]) == (False, "max_retries_exceeded")
    assert "ValueError: no lamp" in reply["error"]
    assert [(f.queue, f.attempt, str(f.error)) for f in rmq.failures] == [
        ("orders", 1, "no lamp"),
        ("orders", 2, "no lamp"),
        ("orders", 3, "no lamp"),
    ]
    [letter] = rmq.dead_letters("orders")
    assert letter.data == {"key": "a", "fail": "no lamp"}
    assert (letter.reason_code, letter.attempts, letter.error_type) == (
        "max_retries_exceeded",
        3,
        "ValueError",
    )
    assert keys() == []  # each attempt was taken back
    assert [r.state for r in IdempotencyRecord.objects.all()] == [IdempotencyRecord.State.FAILED]


def test_a_rejected_message_is_a_dead_letter_at_once(rmq: RabbitMQTester) -> None:
    reply = rmq.deliver("orders", {"key": "a", "refuse": "sold out"}, headers={"tenant": "x"})

    assert reply["error_code"] == "rejected"
    [letter] = rmq.dead_letters("orders")
    assert "sold out" in letter.reason
    assert letter.correlation_id == reply["correlation_id"]
    assert rmq.dead_letters("slow") == []
    assert rmq.dead_letters("unknown") == []


def test_invalid_data_never_reaches_the_handler(rmq: RabbitMQTester) -> None:
    assert rmq.deliver("orders", ["no", "dict"])["error_code"] == "invalid_message"
    assert rmq.failures[0].attempt == 1
    assert keys() == []


def test_a_delay_passes_at_once(rmq: RabbitMQTester) -> None:
    assert rmq.deliver("orders", {"key": "later"}, delay=3600)["success"]
    assert keys() == ["later"]


def test_a_queue_without_a_handler_is_named(rmq: RabbitMQTester) -> None:
    with pytest.raises(ConfigError, match="'order': there are orders, slow"):
        rmq.deliver("order", {})


def test_a_handler_that_takes_too_long_ends_the_wait(handler: Handler) -> None:
    @handler("stuck")
    async def stuck(data: object) -> None:
        await asyncio.Event().wait()

    with (
        override_settings(AUTOSELL_RMQ={"DRAIN_TIMEOUT": 0.1}),
        RabbitMQTester() as rmq,
        pytest.raises(ReplyTimeout),
    ):
        rmq.deliver("stuck", 1, timeout=0.1)


# --- what is sent ----------------------------------------------------------------------------------------


def test_what_is_sent_is_listed_and_kept(rmq: RabbitMQTester) -> None:
    first = producer.send_fire_and_forget("orders", {"key": "a"}, headers={"tenant": "x"})
    producer.send_fire_and_forget("mails", ["to", "you"], correlation_id="c", delay=60)
    producer.publish_to_exchange("events", "order.created", {"id": 1}, message_id="m")

    order, mail, event = rmq.sent
    assert (order.queue, order.exchange, order.data) == ("orders", "", {"key": "a"})
    assert (order.correlation_id, order.headers["tenant"], order.due) == (first, "x", None)
    assert (mail.queue, mail.data, mail.correlation_id) == ("mails", ["to", "you"], "c")
    assert mail.due is not None
    assert (event.queue, event.exchange, event.routing_key) == ("", "events", "order.created")
    assert (event.message_id, event.is_request) == ("m", False)
    assert keys() == []  # nothing is handled before the test says so


def test_the_test_decides_when_it_is_handled(rmq: RabbitMQTester) -> None:
    producer.send_fire_and_forget("orders", {"key": "a"})
    producer.send_fire_and_forget("slow", {"key": "b"}, delay=3600)
    producer.send_fire_and_forget("mails", "another service's")
    producer.publish_to_exchange("events", "order.created", "nobody is bound")

    assert rmq.run() == 2
    assert keys() == ["a", "b"]
    assert rmq.run() == 0
    assert len(rmq.sent) == 4


def test_a_chain_of_handlers_runs_to_its_end(handler: Handler) -> None:
    @handler("first")
    def first(data: int, message: Message) -> None:
        Effect.objects.create(key=f"first {data}")
        message.sync_producer.publish_to_exchange("events", "order.created", data + 1)

    @handler("second", bind=Binding("events", "order.*"))
    async def second(data: int, message: Message) -> None:
        await Effect.objects.acreate(key=f"second {data}")
        await message.producer.send_fire_and_forget("third", data + 1)

    @handler("third", max_retries=1)
    def third(data: int, message: Message) -> None:
        if message.attempt == 1:
            raise ValueError("not yet")
        Effect.objects.create(key=f"third {data}")

    with RabbitMQTester() as rmq:
        assert rmq.deliver("first", 1)["success"]
        assert keys() == ["first 1"]
        assert rmq.run() == 2
        assert keys() == ["first 1", "second 2", "third 3"]

        rmq.deliver_event("events", "order.changed", 7)
        assert keys()[3:] == ["second 7"]
        with pytest.raises(PublishUnroutable):
            rmq.deliver_event("events", "invoice.created", 7)


def test_a_failure_in_run_is_listed_too(rmq: RabbitMQTester) -> None:
    producer.send_fire_and_forget("orders", {"key": "a", "fail": "no lamp"})

    assert rmq.run() == 1
    assert len(rmq.failures) == 3
    assert len(rmq.dead_letters("orders")) == 1


# --- requests --------------------------------------------------------------------------------------------


def test_another_service_is_stood_in_for(rmq: RabbitMQTester) -> None:
    rmq.answer("prices", {"total": 5})
    rmq.answer("stock", lambda data: {"left": 10 - data["quantity"]})

    assert producer.send_message("prices", {})["data"] == {"total": 5}
    assert producer.send_message("stock", {"quantity": 3})["data"] == {"left": 7}
    assert [(message.queue, message.is_request) for message in rmq.sent] == [
        ("prices", True),
        ("stock", True),
    ]


def test_another_service_may_fail(rmq: RabbitMQTester) -> None:
    def fail(data: object) -> None:
        raise LookupError("no such item")

    rmq.answer("prices", fail)
    reply = producer.send_message("prices", {}, correlation_id="c")

    assert reply == {
        "success": False,
        "data": None,
        "error": "LookupError: no such item",
        "error_code": "max_retries_exceeded",
        "correlation_id": "c",
    }


def test_a_request_that_nobody_would_answer_is_told_at_once(rmq: RabbitMQTester) -> None:
    with pytest.raises(PublishUnroutable, match=r"rmq.answer\('prices', …\)"):
        producer.send_message("prices", {})


def test_a_request_to_the_projects_own_handler_is_handled(rmq: RabbitMQTester) -> None:
    reply = producer.send_message("orders", {"key": "a"})

    assert reply["data"]["thread"] == threading.get_ident()
    assert keys() == ["a"]
    assert producer.send_message("slow", {"key": "b"})["success"]


def test_such_a_request_is_retried_too(rmq: RabbitMQTester) -> None:
    assert producer.send_message("orders", {"key": "a", "fail": "no lamp"})["success"] is False
    assert len(rmq.failures) == 3


def test_handlers_ask_each_other(handler: Handler) -> None:
    @handler("outer")
    def outer(data: int, message: Message) -> int:
        Effect.objects.create(key="outer")
        by_message = message.sync_producer.send_message("inner", data)["data"]
        return int(by_message + producer.send_message("inner", data)["data"])

    @handler("inner")
    def inner(data: int) -> int:
        Effect.objects.create(key="inner")
        return data + 1

    @handler("coroutine")
    async def coroutine(data: int, message: Message) -> int:
        by_message = (await message.producer.send_message("inner", data))["data"]
        return int(by_message + (await producer.asend_message("outer", data))["data"])

    with RabbitMQTester() as rmq:
        assert rmq.deliver("outer", 1)["data"] == 4
        assert keys() == ["outer", "inner", "inner"]
        assert rmq.deliver("coroutine", 1)["data"] == 6


# --- commits ---------------------------------------------------------------------------------------------


class Inside(RabbitMQTestMixin, TestCase):
    """The mixin, in Django's own kind of test; the handlers are those of the shop."""

    def test_captured_callbacks_are_what_sends(self) -> None:
        with self.captureOnCommitCallbacks() as callbacks:
            producer.send_on_commit("mails", 1)
        assert (len(callbacks), self.rmq.sent) == (1, [])

        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            producer.send_on_commit("mails", 2)
            assert self.rmq.sent == []
        assert [message.data for message in self.rmq.sent] == [2]

    def test_a_handler_runs_inside_of_the_testcase(self) -> None:
        reply = self.rmq.deliver("shop.sync", {"key": "a"})

        assert reply["success"]
        assert keys() == ["a"]

    def test_nothing_is_left_of_another_test(self) -> None:
        assert (keys(), self.rmq.sent, IdempotencyRecord.objects.count()) == ([], [], 0)

    def test_an_async_test(self) -> None:
        """Django runs ``async def`` tests by the same call."""

        async def body() -> None:
            reply = await self.rmq.adeliver("shop.sync", {"key": "a"})
            assert reply["success"]
            await producer.asend_fire_and_forget("shop.async", {"key": "b"})
            assert await self.rmq.arun() == 1
            assert (await producer.asend_message("shop.sync", {"key": "c"}))["success"]
            assert (await producer.asend_message("shop.async", {"key": "d"}))["success"]

        async_to_sync(body)()

        assert keys() == ["a", "b", "c", "d"]


class AsyncInside(RabbitMQTestMixin, TestCase):
    async def test_an_async_method(self) -> None:
        assert (await self.rmq.adeliver("shop.async", {"key": "a"}))["success"]
        assert await Effect.objects.acount() == 1


class Committing(RabbitMQTestMixin, TransactionTestCase):
    def test_commits_are_real(self) -> None:
        with transaction.atomic():
            producer.send_on_commit("mails", 1)
            assert self.rmq.sent == []
        assert len(self.rmq.sent) == 1

        assert self.rmq.deliver("shop.sync", {"key": "a"})["success"]
        assert self.rmq.deliver("shop.async", {"key": "b"})["success"]
        assert keys() == ["a", "b"]


def test_on_commit_inside_a_handler_is_sent_before_its_reply(handler: Handler) -> None:
    @handler("orders")
    def order(data: int, message: Message) -> int:
        producer.publish_on_commit("events", "order.created", {"id": data})
        if data == 0 and message.attempt == 1:
            raise ValueError("this attempt is rolled back, its event with it")
        return data

    with RabbitMQTester() as rmq:
        assert rmq.deliver("orders", 1)["success"]
        assert rmq.deliver("orders", 0)["success"]

        assert [event.data for event in rmq.sent] == [{"id": 1}, {"id": 0}]
        assert OutboxMessage.objects.filter(sent__isnull=False).count() == 2


def test_the_outbox_is_relayed_when_the_test_says_so(rmq: RabbitMQTester) -> None:
    producer.send_on_commit("orders", {"key": "a"}, outbox=True)
    assert rmq.sent == []

    rmq.relay()

    assert [message.data for message in rmq.sent] == [{"key": "a"}]
    assert rmq.run() == 1
    assert keys() == ["a"]


# --- what is around --------------------------------------------------------------------------------------


class QueryingMiddleware:
    async def __call__(self, message: Message, call_next: Next) -> object:
        await Effect.objects.acreate(key="middleware")
        return await call_next(message)


def test_middleware_may_query(rmq_with_middleware: RabbitMQTester) -> None:
    assert rmq_with_middleware.deliver("a", 1)["data"] == 1
    assert rmq_with_middleware.deliver("b", 2)["data"] == 2
    assert keys() == ["middleware", "middleware"]


@pytest.fixture
def rmq_with_middleware(handler: Handler) -> Iterator[RabbitMQTester]:
    @handler("a")
    def sync(data: int) -> int:
        return data

    @handler("b")
    async def asynchronous(data: int) -> int:
        return data

    middleware = f"{__name__}.QueryingMiddleware"
    with override_settings(AUTOSELL_RMQ={"MIDDLEWARE": [middleware]}), RabbitMQTester() as rmq:
        yield rmq


def test_receivers_of_signals_are_done_when_deliver_returns(rmq: RabbitMQTester) -> None:
    def receive(sender: object, queue: str, **_: object) -> None:
        Effect.objects.create(key=f"handled {queue}")

    signals.message_handled.connect(receive)
    try:
        rmq.deliver("orders", {"key": "a"})
    finally:
        signals.message_handled.disconnect(receive)

    assert keys() == ["a", "handled orders"]


def ask(request: HttpRequest) -> JsonResponse:
    return JsonResponse(producer.send_message("orders", {"key": "view"}))


async def aask(request: HttpRequest) -> JsonResponse:
    await Effect.objects.acreate(key="async view")
    return JsonResponse(await producer.asend_message("orders", {"key": "handler"}))


urlpatterns = [path("ask/", ask), path("aask/", aask)]


@override_settings(ROOT_URLCONF=__name__)
def test_views_ask_handlers(rmq: RabbitMQTester) -> None:
    """Sync and async ones, also after asgiref has been in this thread."""
    client = Client()
    assert client.get("/ask/").json()["success"]
    assert client.get("/aask/").json()["success"]
    rmq.deliver("slow", {"key": "s"})
    assert client.get("/aask/").json()["success"]
    assert keys() == ["view", "async view", "handler", "s", "async view", "handler"]


def test_a_store_outside_of_the_database_is_replaced_by_memory(handler: Handler) -> None:
    handler("a")(lambda data: data)
    setting = {"IDEMPOTENCY": {"STORE": "autosell_rmq.RedisStore", "OPTIONS": {"url": "redis://nowhere"}}}

    with override_settings(AUTOSELL_RMQ=setting), RabbitMQTester() as rmq:
        assert rmq.deliver("a", 1)["data"] == 1

    assert not IdempotencyRecord.objects.exists()


def test_settings_that_are_overridden_inside_still_meet_the_handlers(rmq: RabbitMQTester) -> None:
    from django.conf import settings

    with override_settings(AUTOSELL_RMQ={**settings.AUTOSELL_RMQ, "PUBLISH_TIMEOUT": 3.0}):
        assert producer.send_message("orders", {"key": "a"})["success"]


def test_no_setting_of_the_real_broker_is_in_the_way(handler: Handler) -> None:
    handler("a")(lambda data: data)
    setting = {"URL": "amqps://shop@rabbit.internal/shop", "PASSWORD": "secret", "PREFETCH": 3}

    with override_settings(AUTOSELL_RMQ=setting), RabbitMQTester() as rmq:
        assert rmq.deliver("a", 1)["data"] == 1
        assert conf.get_settings().core.get("prefetch") == 3


def test_everything_is_as_before_afterwards(handler: Handler) -> None:
    handler("a")(lambda data: data)
    before, threads = conf.get_settings().url, threading.active_count()

    with RabbitMQTester() as rmq:
        assert conf.get_settings().url.startswith("memory://test-")
        producer.send_fire_and_forget("a", 1)
        rmq.deliver("a", 1)

    assert conf.get_settings().url == before
    assert waiting.serve is None
    assert threading.active_count() <= threads
    assert setting_changed.has_listeners()
    assert DjangoProducer.asend_message.__qualname__.startswith("SyncRabbitMQProducer")


def test_a_project_without_handlers_can_still_send(handler: Handler) -> None:
    with RabbitMQTester() as rmq:
        producer.send_fire_and_forget("mails", 1)
        assert rmq.run() == 0
        with pytest.raises(ConfigError, match="no handler for queue 'mails'"):
            rmq.deliver("mails", 1)


def test_a_broken_setting_is_told_and_leaves_nothing_behind(handler: Handler) -> None:
    handler("a")(lambda data: data)
    with override_settings(AUTOSELL_RMQ={"PREFECH": 1}), pytest.raises(Exception, match="PREFECH"):
        RabbitMQTester().__enter__()

    assert waiting.serve is None


@pytest.mark.django_db(transaction=True)
async def test_with_an_event_loop_in_the_main_thread(rmq: RabbitMQTester) -> None:
    """pytest-asyncio: the handlers run in the thread of sync_to_async, as the test's queries do."""
    assert (await rmq.adeliver("orders", {"key": "a"}))["success"]
    assert (await producer.asend_message("slow", {"key": "b"}))["success"]
    assert await sync_to_async(keys)() == ["a", "b"]
    await sync_to_async(connections.close_all)()  # of that thread
