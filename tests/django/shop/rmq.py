"""Handlers of the shop, found by autodiscovery. Each process consumes the queues of its test."""

import asyncio
import importlib
import os
import sys
import threading
import time
from pathlib import Path

from asgiref.sync import sync_to_async

from autosell_rmq import Message
from autosell_rmq_django import handler
from tests.django.shop.models import Effect

if name := os.environ.get("RMQ_TEST_IMPORT"):
    importlib.import_module(name)  # of a test's own, which it changes under the autoreloader

PREFIX = os.environ.get("RMQ_TEST_PREFIX") or "shop"
PATIENCE = 30.0  # seconds


@handler(f"{PREFIX}.sync")
def effect(data: dict[str, str], message: Message) -> int:
    """One row; the result is the process's id."""
    Effect.objects.create(key=data["key"], note=str(message.attempt))
    return os.getpid()


@handler(f"{PREFIX}.async")
async def async_effect(data: dict[str, str], message: Message) -> int:
    """The same, from a coroutine."""
    await Effect.objects.acreate(key=data["key"], note=str(message.attempt))
    return os.getpid()


@handler(f"{PREFIX}.lease", effect="lease")
def leased_effect(data: dict[str, str], message: Message) -> int:
    """The same as `effect`, outside of the store's transaction; most of its time is spent on queries."""
    for _ in range(30):
        Effect.objects.filter(key=data["key"]).exists()
    return effect(data, message)


@handler(f"{PREFIX}.gate", effect="lease")
class Gate:
    """Says that it has begun, waits for a file, then writes a row.

    Under a lease: in transactions SQLite would run one at a time.
    """

    def __call__(self, data: dict[str, str]) -> None:
        sys.stdout.write(f"begun {data['key']}\n")
        sys.stdout.flush()
        give_up = time.monotonic() + PATIENCE
        while not Path(data["file"]).exists():
            if time.monotonic() > give_up:
                raise TimeoutError(data["file"])
            time.sleep(0.01)
        Effect.objects.create(key=data["key"])


@handler(f"{PREFIX}.hang")
async def hang(data: dict[str, str]) -> None:
    """Says that it has begun, and hangs in a thread."""

    def in_thread() -> None:
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        threading.Event().wait(PATIENCE)

    await (asyncio.to_thread(in_thread) if data["key"] == "to_thread" else sync_to_async(in_thread)())
