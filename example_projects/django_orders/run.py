"""Runs the example: migrates, then starts ``rmq_consume`` and ``runserver`` until Ctrl+C.

PORT (8000), RABBITMQ_URL, DATABASE_URL and RMQ_PREFIX of the environment are followed.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TextIO
from urllib.error import URLError
from urllib.request import urlopen

HERE = Path(__file__).resolve().parent
MANAGE = [sys.executable, str(HERE / "manage.py")]
PORT = os.environ.get("PORT") or "8000"
SITE = f"http://127.0.0.1:{PORT}"
PATIENCE = 60.0  # seconds for both to be there

HINT = f"""
The shop is at {SITE}/
  1. "Order": the view asks the pricing service, then the handler of orders, and shows its reply.
  2. "Order, clicked twice": two requests under one id are one order, with the same answer twice.
  3. Reload the page: the mail came by the event order.created, after the commit.
  4. {SITE}/admin/ (admin, admin): the order, its idempotency record with the stored result, the outbox.

  curl {SITE}/api/prices/lamp
  curl -d '{{"customer": "ann@example.com", "lines": [{{"item": "lamp"}}]}}' \\
    -H 'Idempotency-Key: one' {SITE}/api/orders

Ctrl+C stops both.
"""


def prepare() -> None:
    """Tables, and a user for the admin."""
    subprocess.run([*MANAGE, "migrate", "--verbosity", "0"], check=True)
    account = {"DJANGO_SUPERUSER_USERNAME": "admin", "DJANGO_SUPERUSER_PASSWORD": "admin"}
    mail = {"DJANGO_SUPERUSER_EMAIL": "admin@example.com"}
    # It fails where the user is there already.
    subprocess.run(
        [*MANAGE, "createsuperuser", "--noinput"],
        env={**os.environ, **account, **mail},
        capture_output=True,
        check=False,
    )


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    """A process of ``manage.py``, whose lines are printed with its name."""
    process = subprocess.Popen(
        [*MANAGE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # Ctrl+C is for us: we stop it
    )
    assert process.stdout is not None
    threading.Thread(target=show, args=(name, process.stdout), daemon=True).start()
    return process


consuming = threading.Event()


def show(name: str, lines: TextIO) -> None:
    """Print what a process says."""
    for line in lines:
        print(f"{name:>8} | {line.rstrip()}", flush=True)
        if line.startswith("ready"):
            consuming.set()


def answers() -> bool:
    """Whether the shop is there."""
    try:
        with urlopen(f"{SITE}/", timeout=5) as response:
            return response.status == 200
    except (URLError, OSError):
        return False


def run() -> int:
    """Start both, say so, and stop both when one ends; returns the exit code."""
    both = [start("consumer", "rmq_consume", "--no-reload")]
    both.append(start("web", "runserver", PORT, "--noreload"))
    give_up = time.monotonic() + PATIENCE
    try:
        while not (consuming.is_set() and answers()) and time.monotonic() < give_up and alive(both):
            time.sleep(0.2)
        if alive(both) and consuming.is_set():
            print(HINT, flush=True)
        while alive(both):
            time.sleep(0.2)
    except KeyboardInterrupt:
        return 0
    else:
        return 1
    finally:
        for process in both:
            process.terminate()
        for process in both:
            process.wait(timeout=40)


def alive(processes: list[subprocess.Popen[str]]) -> bool:
    """Whether all of them run."""
    return all(process.poll() is None for process in processes)


def interrupt(*_: object) -> None:
    """SIGTERM is Ctrl+C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    prepare()
    sys.exit(run())
