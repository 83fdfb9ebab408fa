"""A relay in a process of its own. With a number, it is killed between that confirm and its mark."""

import asyncio
import os
import signal
import sys
from pathlib import Path

# The first entry is this folder, whose `shop` would be a second copy of `tests.django.shop`.
sys.path[0] = str(Path(__file__).resolve().parents[2])
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django.settings")

import django  # noqa: E402 - it reads the variable

django.setup()

from autosell_rmq.testing import Faults  # noqa: E402 - after the setup
from autosell_rmq_django.relay import Relay  # noqa: E402
from tests.django.outbox_fixtures import connected, quick  # noqa: E402


async def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(fatal: int) -> None:
    settings = quick(batch=20)
    faults = Faults()
    if fatal:
        faults.on("publish", after=die, skip=fatal - 1)
    async with connected(settings, faults) as producer:
        relay = Relay(producer, settings)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, relay.stop)
        sys.stdout.write("relaying\n")
        sys.stdout.flush()
        await relay.run()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
