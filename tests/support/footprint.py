"""What a process holds open: whether something was left behind."""

import asyncio
import gc
import os
import threading
from pathlib import Path

from tests.support.waiting import eventually


def sockets() -> int:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except OSError:
            continue
    return sum(link.startswith("socket:") for link in links)


class Footprint:
    """What this process holds open now, and whether it is back to that."""

    def __init__(self) -> None:
        self.tasks = len(asyncio.all_tasks())
        self.threads = threading.active_count()
        self.sockets = sockets()

    async def is_restored(self) -> None:
        def restored() -> bool:
            gc.collect()
            return (
                len(asyncio.all_tasks()) <= self.tasks
                and threading.active_count() <= self.threads
                and sockets() <= self.sockets
            )

        await eventually(restored)
