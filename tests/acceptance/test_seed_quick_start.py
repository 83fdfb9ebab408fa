"""The seed's quick start: its two scripts as two processes on a real RabbitMQ."""

import signal
import sys
from pathlib import Path

import pytest

from tests.acceptance.markdown import rewritten, seed_snippet
from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import running, running_script

pytestmark = [pytest.mark.acceptance, pytest.mark.rabbitmq, pytest.mark.timeout(90)]

CONSUMER = seed_snippet("async def message_handler")
PRODUCER = seed_snippet("Отправляем без ожидания ответа")
URL = '"amqp://guest:guest@localhost/"'


async def test_two_processes_talk_until_ctrl_c(rabbit: RabbitPlace, tmp_path: Path) -> None:
    queue = rabbit.queue("seed")
    consumer_code = rewritten(
        CONSUMER, {URL: repr(rabbit.url), '"my_queue"': repr(queue), '"my_queue_dlq"': repr(f"{queue}_dlq")}
    )
    producer_code = rewritten(PRODUCER, {URL: repr(rabbit.url), '"my_queue"': repr(queue)})

    async with running_script(tmp_path / "consumer.py", consumer_code) as consumer:
        await rabbit.is_consumed(queue)
        async with running_script(tmp_path / "producer.py", producer_code) as producer:
            assert await producer.exit_code() == 0, producer.transcript
        await consumer.until("Получено", times=2)
        consumer.signal(signal.SIGINT)
        assert await consumer.exit_code() == 0, consumer.transcript

    answer, sent = producer.lines
    assert answer.startswith("Ответ: {'success': True, 'data': {'processed': True, 'data': {")
    assert "'text': 'Привет, мир!', 'user_id': 123" in answer
    assert "'correlation_id': '" in answer
    assert len(sent.removeprefix("Отправлено: ")) == 32
    assert producer.errors == []
    assert consumer.lines == [
        "Получено: {'text': 'Привет, мир!', 'user_id': 123}",
        "Получено: {'type': 'notification', 'text': 'Уведомление'}",
    ]
    # The one line that a program without logging of its own shows.
    [warning] = consumer.errors
    assert warning.startswith("idempotency is kept in this process's memory")
    assert await rabbit.depth(queue) == 0
    assert await rabbit.depth(f"{queue}_dlq") == 0


async def test_producer_started_first_says_that_the_queue_is_missing(
    rabbit: RabbitPlace, tmp_path: Path
) -> None:
    queue = rabbit.queue("seed")
    code = rewritten(PRODUCER, {URL: repr(rabbit.url), '"my_queue"': repr(queue)})

    async with running_script(tmp_path / "producer.py", code) as producer:
        assert await producer.exit_code() == 1

    assert producer.errors[-1] == f"autosell_rmq.exceptions.PublishUnroutable: there is no queue '{queue}'"


@pytest.mark.parametrize("code", [CONSUMER, PRODUCER], ids=["consumer", "producer"])
async def test_scripts_as_they_are_need_no_installed_service_to_be_imported(
    code: str, tmp_path: Path
) -> None:
    path = tmp_path / "script.py"
    path.write_text(code, encoding="utf-8")

    async with running(sys.executable, "-W", "error", "-c", "import script", cwd=tmp_path) as run:
        assert await run.exit_code() == 0, run.transcript
