"""Failures: retried 1, 2, 4 … seconds later up to a cap, or given up, as handler and settings say."""

import asyncio
from collections.abc import Callable

import pytest

from autosell_rmq import Message, Reject, RetryLater
from autosell_rmq.pipeline import Statistics
from tests.integration.app_fixtures import Stage
from tests.integration.stage_fixtures import MemoryStage
from tests.support.waiting import eventually


class OddError(Exception):
    """An error that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class OutsideTheTree(BaseException):
    """Not an `Exception`, as pytest's failures and other frameworks' signals are not."""


class Runs:
    """A handler that fails with `error` and knows when it ran."""

    def __init__(
        self, now: Callable[[], float], error: BaseException | None = None, times: int = 1000
    ) -> None:
        self._now = now
        self.error = error
        self.times = times
        self.moments: list[float] = []

    async def __call__(self, payload: object, message: Message) -> int:
        self.moments.append(self._now())
        if self.error is not None and len(self.moments) <= self.times:
            raise self.error
        return message.attempt

    @property
    def waits(self) -> list[float]:
        return [later - sooner for sooner, later in zip(self.moments, self.moments[1:], strict=False)]


async def test_the_waits_double_up_to_the_cap(memory: MemoryStage) -> None:
    queue = memory.queue()
    app = memory.app(retry_delay=1, max_retry_delay=10)
    handler = Runs(memory.clock.now, ValueError("no"))
    app.handler(queue, max_retries=7)(handler)
    await app.start_consuming()
    sent = await memory.ask(queue, 1)
    await memory.pass_time(3600)

    assert handler.waits == pytest.approx([1, 2, 4, 8, 10, 10, 10], abs=0.06)
    assert (await memory.reply(sent))["error_code"] == "max_retries_exceeded"


async def test_a_fraction_of_a_second_and_an_odd_delay_are_kept(memory: MemoryStage) -> None:
    queue = memory.queue()
    app = memory.app(max_retry_delay=100)
    handler = Runs(memory.clock.now, ValueError("no"))
    app.handler(queue, max_retries=3, retry_delay=3.3)(handler)
    await app.start_consuming()
    await memory.ask(queue, 1)
    await memory.pass_time(3600)

    for wait, asked in zip(handler.waits, [3.3, 6.6, 13.2], strict=True):
        assert asked - 0.06 <= wait < asked + 1


async def test_the_first_retry_comes_a_second_later(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    handler = Runs(stage.outside.now, ValueError("no"), times=1)
    app.handler(queue)(handler)
    await app.start_consuming()
    sent = await stage.ask(queue, 1)

    assert (await stage.reply(sent))["data"] == 2
    assert 0.9 < handler.waits[0] < 2
    await eventually(lambda: app.statistics == Statistics(handled=1, retried=1, replies=1))


async def test_max_retries_plus_one_runs_then_one_letter_and_one_reply(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    handler = Runs(stage.outside.now, ValueError("нет товара"))
    app.handler(queue, max_retries=1)(handler)
    await app.start_consuming()
    sent = await stage.ask(queue, {"n": 1})

    assert await stage.reply(sent) == {
        "success": False,
        "data": None,
        "error": "ValueError: нет товара",
        "error_code": "max_retries_exceeded",
        "correlation_id": sent,
    }
    letter = await stage.letter(queue)
    assert letter["reason"] == (
        "Превышено максимальное количество попыток: Ошибка обработки сообщения: нет товара"
    )
    assert (letter["attempts"], letter["error_type"]) == (2, "ValueError")
    assert len(handler.moments) == 2
    assert await stage.depth(f"{queue}_dlq") == 0


async def test_no_retries_means_one_run(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=0)
    handler = Runs(stage.outside.now, KeyError("sku"))
    app.handler(queue)(handler)
    await app.start_consuming()
    sent = await stage.ask(queue, 1)

    reply, letter = await stage.reply(sent), await stage.letter(queue)
    assert (reply["error"], reply["error_code"]) == ("KeyError: 'sku'", "unhandled_exception")
    assert letter["reason"] == "Необработанное исключение в обработчике: 'sku'"
    assert letter["attempts"] == len(handler.moments) == 1


async def test_reject_dead_letters_at_once(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    handler = Runs(stage.outside.now, Reject("not ours"))
    app.handler(queue, max_retries=9)(handler)
    await app.start_consuming()
    sent = await stage.ask(queue, 1)

    reply, letter = await stage.reply(sent), await stage.letter(queue)
    assert (reply["error"], reply["error_code"]) == ("Reject: not ours", "rejected")
    assert letter["reason"] == "Сообщение отклонено: not ours"
    assert (letter["reason_code"], letter["attempts"], letter["error_type"]) == ("rejected", 1, "Reject")
    assert len(handler.moments) == 1


async def test_reject_without_words_has_a_reason_all_the_same(memory: MemoryStage) -> None:
    queue = memory.queue()
    app = memory.app()
    app.handler(queue)(Runs(memory.clock.now, Reject()))
    await app.start_consuming()
    sent = await memory.ask(queue, 1)

    assert (await memory.reply(sent))["error"] == "Reject"
    assert (await memory.letter(queue))["reason"] == "Сообщение отклонено: Reject"


@pytest.mark.parametrize(("delay", "waited"), [(5, 5), (0, 1), (300.5, 300.5), (3 * 86400, 3 * 86400)])
async def test_retry_later_names_the_delay(memory: MemoryStage, delay: float, waited: float) -> None:
    queue = memory.queue()
    app = memory.app(retry_delay=1, max_retry_delay=60)
    handler = Runs(memory.clock.now, RetryLater("busy", delay=delay), times=1)
    app.handler(queue, max_retries=1)(handler)
    await app.start_consuming()
    sent = await memory.ask(queue, 1)
    await memory.pass_time(waited + 2)

    assert (await memory.reply(sent))["data"] == 2
    assert waited - 0.06 <= handler.waits[0] < waited + 1


async def test_retry_later_without_a_delay_waits_as_any_failure_and_counts(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    handler = Runs(stage.outside.now, RetryLater("the bank is closed"))
    app.handler(queue, max_retries=1)(handler)
    await app.start_consuming()
    sent = await stage.ask(queue, 1)

    reply = await stage.reply(sent)
    assert reply["error"] == "RetryLater: the bank is closed"
    assert reply["error_code"] == "max_retries_exceeded"
    assert len(handler.moments) == 2
    assert 0.9 < handler.waits[0] < 2


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (asyncio.CancelledError("somebody else's"), "CancelledError: somebody else's"),
        (asyncio.CancelledError(), "CancelledError"),
        (TimeoutError("the bank"), "TimeoutError: the bank"),
        (ExceptionGroup("both", [ValueError(1), KeyError(2)]), "ExceptionGroup: both (2 sub-exceptions)"),
        (StopIteration(5), "RuntimeError: coroutine raised StopIteration"),
        (OutsideTheTree("a framework's own"), "OutsideTheTree: a framework's own"),
        (OddError(), "OddError"),
    ],
)
async def test_whatever_a_handler_raises_is_a_failure(
    memory: MemoryStage, error: BaseException, shown: str
) -> None:
    queue = memory.queue()
    app = memory.app()
    handler = Runs(memory.clock.now, error)
    app.handler(queue, max_retries=1)(handler)
    await app.start_consuming()
    sent = await memory.ask(queue, 1)
    await memory.pass_time(5)

    reply = await memory.reply(sent)
    assert reply["error"] == shown
    assert reply["error_code"] == "max_retries_exceeded"
    assert len(handler.moments) == 2


@pytest.mark.parametrize("error", [asyncio.CancelledError("x"), StopIteration(5), OutsideTheTree("x")])
async def test_whatever_a_sync_handler_raises_is_a_failure(stage: Stage, error: BaseException) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=0)

    @app.handler(queue)
    def handler(payload: object) -> None:
        raise error

    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    assert (await stage.reply(sent))["error_code"] == "unhandled_exception"


async def test_a_cancelled_inner_task_is_a_failure_not_a_shutdown(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=0)

    @app.handler(queue)
    async def handler(payload: object) -> None:
        inner = asyncio.ensure_future(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner

    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    assert (await stage.reply(sent))["error"] == "CancelledError"
    sent = await stage.ask(queue, 1)  # and it still consumes
    assert (await stage.reply(sent))["error"] == "CancelledError"


async def test_many_failures_do_not_hold_up_what_works(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()

    @app.handler(queue, max_retries=1, prefetch=2)
    async def handler(payload: int, message: Message) -> int:
        if payload % 2 and message.attempt == 1:
            raise ValueError(payload)
        return message.attempt

    await app.start_consuming()
    sent = [await stage.ask(queue, number) for number in range(40)]
    attempts = [(await stage.reply(identity))["data"] for identity in sent]
    assert attempts == [1, 2] * 20


async def test_the_error_text_is_redacted_everywhere(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=1, redact=lambda text: text.replace("4111 1111", "****"))
    app.handler(queue)(Runs(stage.outside.now, ValueError("card 4111 1111 refused")))
    await app.start_consuming()
    sent = await stage.ask(queue, 1)

    reply = await stage.reply(sent)
    letter = await stage.letter_message(queue)
    assert reply["error"] == "ValueError: card **** refused"
    for text in (letter.body.decode(), str(letter.headers), caplog.text):
        assert "card **** refused" in text
        assert "4111" not in text


async def test_an_error_text_of_megabytes_is_cut(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=0)
    app.handler(queue)(Runs(stage.outside.now, ValueError("й" * 3_000_000)))
    await app.start_consuming()
    sent = await stage.ask(queue, 1)

    assert len((await stage.reply(sent))["error"]) <= 8192
    letter = await stage.letter_message(queue)
    assert len(letter.body) < 64 * 1024
    assert len(str(letter.headers["x-death-reason"]).encode()) < 4096
