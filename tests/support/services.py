"""The real services that tests talk to: where they are, and what to do without them."""

import os
from functools import cache

import pytest

from scripts.services import SERVICES, answers

RABBITMQ_URL = os.environ.get("RABBITMQ_URL") or "amqp://guest:guest@127.0.0.1:5672/"


def require(name: str) -> None:
    """Skip the test where the service does not answer; fail it where services are required (CI)."""
    if _answers(name):
        return
    missing = f"{name} does not answer: python scripts/services.py {name}"
    if os.environ.get("AUTOSELL_RMQ_REQUIRE_SERVICES") == "1":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


@cache
def _answers(name: str) -> bool:
    return answers(SERVICES[name])
