"""The real services that tests talk to: where they are, and what to do without them."""

import os
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

from scripts.services import DATA, SERVICES, answers

RABBITMQ_URL = os.environ.get("RABBITMQ_URL") or "amqp://guest:guest@127.0.0.1:5672/"


def require(name: str) -> None:
    """Skip the test where the service does not answer; fail it where services are required (CI)."""
    if not _answers(name):
        _miss(f"{name} does not answer: python scripts/services.py {name}")


def data(name: str) -> Path:
    """A file that the project does not carry; without it the test is skipped, or fails in CI."""
    file = DATA[name].file
    if not file.exists():
        _miss(f"{file.name} is not there: python scripts/services.py {name}")
    return file


def _miss(missing: str) -> NoReturn:
    if os.environ.get("AUTOSELL_RMQ_REQUIRE_SERVICES") == "1":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


@cache
def _answers(name: str) -> bool:
    return answers(SERVICES[name])
