"""Leaving in time: a thread that hangs in somebody's code must not keep the process."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import NoReturn

from asgiref.sync import SyncToAsync

logger = logging.getLogger(__name__)

_PATIENCE = 2.0  # seconds for idle threads to end


@asynccontextmanager
async def own_executor() -> AsyncGenerator[None]:
    """Give the loop an executor for ``asyncio.to_thread`` whose threads nobody waits for at the end.

    ``asyncio.run`` waits five minutes for those of the usual one.
    """
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop.set_default_executor(executor)
    try:
        yield
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        loop.set_default_executor(ThreadPoolExecutor(1))


def leave(code: int) -> NoReturn:
    """End the process, whose work is done, with this exit code.

    Python would join the threads of executors; what hangs in one is left behind.
    """
    SyncToAsync.single_thread_executor.shutdown(wait=False, cancel_futures=True)
    give_up = time.monotonic() + _PATIENCE
    for thread in _others():
        thread.join(max(give_up - time.monotonic(), 0))
    if hanging := [thread.name for thread in _others()]:
        logger.warning("leaving although threads still run: %s", ", ".join(hanging))
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _others() -> list[threading.Thread]:
    """The threads that Python would wait for."""
    return [t for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]
