"""The programs that are measured; each has a script in ``peers/`` and runs in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A program that can do works.

    Attributes:
        name: as the tables show it.
        script: of ``peers/``; None for the C program.
        ours: runs in the project's own environment, not in that of the peers.
        blocking: it has no event loop.
        declares: it declares its queues itself, with arguments of its own.
        pace: how many of a work's messages it is given: slow clients get fewer.
    """

    name: str
    script: str | None
    ours: bool = False
    blocking: bool = False
    declares: bool = False
    pace: float = 1.0


OURS = Client(name="autosell-rmq", script="our_rmq.py", ours=True)
DJANGO = Client(name="autosell-rmq, Django", script="our_django.py", ours=True, pace=0.25)
AIO_PIKA = Client(name="aio-pika", script="raw_aio_pika.py", pace=0.7)
JSON_RPC = Client(name="aio-pika, its JSON RPC", script="raw_aio_pika.py", declares=True, pace=0.5)
FASTSTREAM = Client(name="FastStream", script="with_faststream.py", pace=0.4)
TASKIQ = Client(name="taskiq-aio-pika", script="with_taskiq.py", declares=True, pace=0.3)
CELERY = Client(name="Celery, solo", script="with_celery.py", blocking=True, declares=True, pace=0.2)
DRAMATIQ = Client(
    name="dramatiq, 8 threads",
    script="with_dramatiq.py",
    blocking=True,
    declares=True,
    pace=0.2,
)
PIKA = Client(name="pika, blocking", script="raw_pika.py", blocking=True, pace=0.3)
LIMIT = Client(name="C, librabbitmq", script=None, blocking=True, pace=2.0)
