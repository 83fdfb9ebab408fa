"""A service on autosell-rmq 0.1.4, told what to do line by line: run by a Python that has that version.

Each line on standard input is ``[id, verb, arguments]``; each answer ``[id, result, error]``.
"""

import asyncio
import json
import sys
from typing import Any

from autosell_rmq import RabbitMQConsumer, RabbitMQProducer


class Service:
    """One consumer and one producer, with the calls that 0.1.4 has."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._consumer: RabbitMQConsumer | None = None
        self._producer = RabbitMQProducer(url)
        self._connecting = asyncio.Lock()
        self._seen: list[object] = []

    async def handle(self, data: dict[str, Any]) -> dict[str, Any]:
        self._seen.append(data.get("n"))
        if data.get("fail"):
            raise ValueError("boom")
        await asyncio.sleep(data.get("takes", 0))
        return {"by": "0.1.4", "n": data.get("n")}

    async def consume(self, queue: str, dlq: str, max_retries: int = 3) -> None:
        self._consumer = RabbitMQConsumer(self._url, queue, dlq, max_retries)
        self._consumer.set_message_handler(self.handle)
        await self._consumer.start_consuming()

    async def consume_without_handler(self, queue: str, dlq: str) -> None:
        self._consumer = RabbitMQConsumer(self._url, queue, dlq)
        await self._consumer.start_consuming()

    async def stop_consuming(self) -> None:
        if self._consumer is not None:
            await self._consumer.close()

    async def seen(self) -> list[object]:
        return self._seen

    async def send(self, queue: str, data: object, **options: Any) -> object:  # noqa: ANN401
        await self._connect()
        return await self._producer.send_message(queue, data, **options)

    async def send_fire_and_forget(self, queue: str, data: object) -> str:
        await self._connect()
        return await self._producer.send_fire_and_forget(queue, data)

    async def send_unserialisable(self, queue: str) -> None:
        await self._connect()
        await self._producer.send_fire_and_forget(queue, {"a": object()})

    async def publish_to_exchange(self, exchange: str, routing_key: str, data: object) -> str:
        await self._connect()
        return await self._producer.publish_to_exchange(exchange, routing_key, data)

    async def root_handlers(self) -> int:
        import logging

        return len(logging.getLogger().handlers)

    async def _connect(self) -> None:
        """Once: 0.1.4 opens a connection for each concurrent first call."""
        async with self._connecting:
            if self._producer.connection is None:  # type: ignore[attr-defined]
                await self._producer.connect()


async def answer(service: Service, line: bytes) -> None:
    number, verb, arguments = json.loads(line)
    result = error = None
    try:
        result = await getattr(service, verb)(**arguments)
    except Exception as failure:  # noqa: BLE001 - the other side judges it
        error = f"{type(failure).__name__}: {failure}"
    sys.stdout.write(json.dumps([number, result, error]) + "\n")
    sys.stdout.flush()


async def main(url: str) -> None:
    service = Service(url)
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    tasks = set()
    while line := await reader.readline():
        task = asyncio.create_task(answer(service, line))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
