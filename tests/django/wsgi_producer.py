"""A WSGI application that sends a message when it is loaded, and one for each request."""

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django.settings")
django.setup()

from autosell_rmq_django import producer  # noqa: E402 - after the setup

QUEUE = os.environ["RMQ_TEST_QUEUE"]


def send(source: str) -> None:
    producer.send_fire_and_forget(QUEUE, {"source": source, "pid": os.getpid()})


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Send, and answer with the worker's process id."""
    send(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(os.getpid()).encode()]


send("preload")
