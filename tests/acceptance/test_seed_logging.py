"""The seed's logging: everything on its list is in the log that its snippet sets up."""

import signal
from pathlib import Path

import pytest

from autosell_rmq import RabbitMQProducer
from tests.acceptance.markdown import rewritten, seed_snippet
from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import Running, running_script

pytestmark = [pytest.mark.acceptance, pytest.mark.rabbitmq, pytest.mark.timeout(90)]

LOGGING = seed_snippet("logging.basicConfig")
CONSUMER = seed_snippet("async def message_handler")
PRODUCER = seed_snippet("Отправляем без ожидания ответа")
FAIL = "    if 'fail' in message_data: raise ValueError('boom')\n    result = {"
URL = '"amqp://guest:guest@localhost/"'


def starts(run: Running, level: str, logger: str, message: str) -> bool:
    """Whether a line of the seed's format is in its log."""
    wanted = f" - {logger} - {level} - {message}"
    return any(wanted in line for line in run.errors)


async def test_consumer_logs_everything_on_the_list(rabbit: RabbitPlace, tmp_path: Path) -> None:
    queue = rabbit.queue("log")
    dlq = f"{queue}_dlq"
    code = rewritten(
        CONSUMER,
        {
            URL: repr(rabbit.url),
            '"my_queue"': repr(queue),
            '"my_queue_dlq"': f"{dlq!r}, max_retries=1",
            "    result = {": FAIL,
        },
    )

    async with running_script(tmp_path / "consumer.py", LOGGING + code) as run:
        await rabbit.is_consumed(queue)
        async with RabbitMQProducer(rabbit.url) as producer:
            for body in ({"n": 1}, {"n": 1}, {"fail": 1}):
                await producer.send_message(queue, body, correlation_id=f"id-{len(str(body))}")
        await run.until(f"message moved to {dlq}")
        run.signal(signal.SIGTERM)
        assert await run.exit_code() == 0, run.transcript

    # - Подключение к RabbitMQ
    assert starts(run, "INFO", "autosell_rmq.brokers.rabbitmq.connecting", "connected to RabbitMQ at amqp://")
    consumer = "autosell_rmq.consumer.consumer"
    assert starts(run, "INFO", consumer, f"consuming queue {queue} (dlq {dlq}, prefetch 20, max_retries 1)")
    assert starts(run, "INFO", "autosell_rmq.brokers.rabbitmq.broker", "disconnected from RabbitMQ")
    # - Обработка сообщений
    pipeline = "autosell_rmq.pipeline.process"
    assert starts(run, "INFO", pipeline, f"queue {queue}: handled, correlation_id=id-8")
    assert starts(run, "INFO", pipeline, f"queue {queue}: a duplicate, answered with the stored result")
    # - Отправка ответов
    settlement = "autosell_rmq.consumer.settlement"
    assert starts(run, "INFO", settlement, "reply sent to amq.rabbitmq.reply-to.")
    # - Ошибки и перемещение в DLQ
    assert starts(run, "WARNING", pipeline, f"queue {queue}: attempt 1 of 2 failed: ValueError: boom")
    assert starts(run, "INFO", settlement, f"queue {queue}: attempt 2 in 1.0 s, correlation_id=id-11")
    assert starts(run, "ERROR", pipeline, f"queue {queue}: attempt 2 of 2 failed: ValueError: boom")
    assert starts(
        run, "WARNING", settlement, f"queue {queue}: message moved to {dlq} (max_retries_exceeded): boom"
    )
    # - Статистика идемпотентности
    statistics = "idempotency and handling statistics: handled=1, duplicates=1, conflicts=0, without_id=0"
    assert starts(run, "INFO", "autosell_rmq.consumer.group", statistics)
    assert starts(run, "INFO", "autosell_rmq.signals", "SIGTERM: stopping gracefully")


async def test_log_holds_neither_the_password_nor_a_payload(rabbit: RabbitPlace, tmp_path: Path) -> None:
    queue = rabbit.queue("log")
    code = rewritten(
        CONSUMER, {URL: repr(rabbit.url), '"my_queue"': repr(queue), "my_queue_dlq": f"{queue}_dlq"}
    )

    async with running_script(tmp_path / "consumer.py", LOGGING + code) as run:
        await rabbit.is_consumed(queue)
        async with RabbitMQProducer(rabbit.url) as producer:
            await producer.send_message(queue, {"card": "4111-1111"})
        await run.until("4111-1111")  # the handler of the seed prints it
        run.signal(signal.SIGTERM)
        assert await run.exit_code() == 0, run.transcript

    assert "4111" not in run.error_output
    assert "guest:guest" not in run.error_output


async def test_producer_logs_requests_replies_and_sends(rabbit: RabbitPlace, tmp_path: Path) -> None:
    queue = rabbit.queue("log")
    names = {URL: repr(rabbit.url), '"my_queue"': repr(queue)}
    consumer_code = rewritten(CONSUMER, names | {"my_queue_dlq": f"{queue}_dlq"})

    async with running_script(tmp_path / "consumer.py", consumer_code):
        await rabbit.is_consumed(queue)
        async with running_script(tmp_path / "producer.py", LOGGING + rewritten(PRODUCER, names)) as run:
            assert await run.exit_code() == 0, run.transcript

    producer = "autosell_rmq.producer.producer"
    assert starts(run, "INFO", producer, f"request to queue {queue}, correlation_id=")
    assert starts(run, "INFO", producer, f"reply from queue {queue}, correlation_id=")
    assert starts(run, "INFO", producer, f"sent to queue {queue}, correlation_id=")
