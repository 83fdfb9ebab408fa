"""The fixture for pytest: a plugin, ``-p no:autosell_rmq_fastapi`` keeps it out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from autosell_rmq import RabbitMQ
    from autosell_rmq.testing import RabbitMQTester


class InMemory(Protocol):
    """What the fixture `rmq_in_memory` is, for annotations."""

    def __call__(self, *rmqs: RabbitMQ) -> RabbitMQTester: ...


@pytest.fixture
def rmq_in_memory() -> Iterator[InMemory]:
    """A function that puts RabbitMQ objects on a broker in memory until the end of the test.

    Call it before the app starts; the app's start and stop have to be inside of the test, or in fixtures that
    come after this one. It returns a `RabbitMQTester`; objects that are given together share a broker.
    """
    # Imported here: pytest imports the plugin in every project, in those that do not use it too.
    from autosell_rmq.testing import RabbitMQTester

    with ExitStack() as opened:
        yield lambda *rmqs: opened.enter_context(RabbitMQTester(*rmqs))
