"""A worker in lease mode, over Redis: ``leased_worker.py``, told what to do by its environment.

It says when it begins a message, and whenever what the app calls its problems changes. A line on its input
is a question: it says how many tasks it has.
"""

import asyncio
import json
import logging
import os
import sys
import threading
import time
import uuid
from typing import Any

from redis.asyncio import Redis

from autosell_rmq import HandlerKwargs, RabbitMQ, RedisStore

SPEC: dict[str, Any] = json.loads(os.environ["CHAOS_WORKER"])

app = RabbitMQ(SPEC["url"], store=RedisStore(SPEC["redis"], prefix=SPEC["prefix"]), **SPEC["settings"])
redis = Redis.from_url(SPEC["redis"])
options: HandlerKwargs = SPEC["options"]


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def pay(data: dict[str, Any]) -> dict[str, str]:
    """An effect, with its time; the result tells two runs apart."""
    say("begun", data["key"])
    match data.get("how"):
        case "hang":
            await asyncio.Event().wait()
        case "raise":
            raise ValueError("on purpose")
        case "block":
            time.sleep(data["seconds"])  # noqa: ASYNC251 - the mistake that is tried here
        case _:
            await asyncio.sleep(data["seconds"])
    await redis.rpush(f"{SPEC['prefix']}effects", f"{data['key']} {time.monotonic()}")
    return {"key": data["key"], "run": uuid.uuid4().hex}


def stubborn(data: dict[str, Any]) -> None:
    """A thread that cannot be stopped."""
    say("begun", data["key"])
    threading.Event().wait()


async def tell_problems() -> None:
    last: tuple[str, ...] = ()
    while True:
        if app.problems != last:
            last = app.problems
            say("problems", time.monotonic(), json.dumps(last))
        await asyncio.sleep(0.02)


async def main() -> None:
    loop = asyncio.get_running_loop()

    def answer() -> None:
        say("tasks", len(asyncio.all_tasks()))

    def listen() -> None:
        for _ in sys.stdin:
            loop.call_soon_threadsafe(answer)

    threading.Thread(target=listen, daemon=True).start()
    async with app:
        await app.start_consuming()
        say("ready")
        telling = asyncio.create_task(tell_problems())
        try:
            await app.run()
        finally:
            telling.cancel()
    await redis.aclose()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    app.handler(SPEC["queue"], **options)(stubborn if SPEC["stubborn"] else pay)
    asyncio.run(main())
