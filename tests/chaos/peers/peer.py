"""What the programs of the peers have in common. It needs nothing but the standard library.

Each has two parts: a worker that has an effect for each message, and a sender that sends steadily until it is
told to stop by a line on its input. Both say what they do, a line each.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFETCH = 10


@dataclass(frozen=True)
class Spec:
    """What a program is to do.

    Attributes:
        url: of the broker.
        queue: that is consumed; the worker declares it.
        effects: a file with a line for each effect.
        seconds: that the handler takes.
        rate: messages a second.
        number: of messages; 0 for no limit.
    """

    url: str
    queue: str
    effects: str
    seconds: float
    rate: float
    number: int

    @classmethod
    def given(cls) -> Spec:
        return cls(**json.loads(os.environ["CHAOS_PEER"]))


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def work(spec: Spec, key: str) -> None:
    """The handler of all of them."""
    say("begun", key)
    await asyncio.sleep(spec.seconds)
    with Path(spec.effects).open("a") as file:  # noqa: ASYNC230 - one short line
        file.write(f"{key} {time.monotonic()}\n")


async def send(spec: Spec, publish: Callable[[dict[str, Any]], Awaitable[object]]) -> None:
    """Send at a steady rate, whatever becomes of what was sent; say which are accepted and which are not."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def listen() -> None:
        sys.stdin.readline()
        loop.call_soon_threadsafe(stop.set)

    async def one(key: str) -> None:
        try:
            await publish({"key": key})
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - that is what is counted
            say("failed", key, type(error).__name__)
        else:
            say("accepted", key, time.monotonic())

    threading.Thread(target=listen, daemon=True).start()
    begun, number = loop.time(), 0
    async with asyncio.TaskGroup() as group:
        while not stop.is_set() and (not spec.number or number < spec.number):
            group.create_task(one(f"{spec.queue}.{number}"))
            number += 1
            await asyncio.sleep(max(begun + number / spec.rate - loop.time(), 0))
    say("sent", number)
