"""Acceptance: consumers are killed at every point of a message's way, and not one effect is lost or doubled.

Real processes, RabbitMQ, and the database of the run: PostgreSQL in full, the other two shorter.
"""

import signal

import pytest

from tests.django import settings
from tests.django.crash.harness import POINTS, harness
from tests.django.crash.ledger import CLEAN
from tests.django.store_fixtures import elsewhere

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.acceptance,
    pytest.mark.rabbitmq,
    pytest.mark.timeout(300),
]

# Requests, kills, seconds.
SIZES = {"postgres": (500, 36, 150.0), "mariadb": (150, 18, 150.0), "sqlite": (100, 12, 150.0)}


@pytest.mark.parametrize("store", ["exactly once", "shared"])
async def test_sigkill_at_every_point_loses_and_doubles_nothing(store: str) -> None:
    ids, kills, within = SIZES[settings.KIND if store == "exactly once" else "sqlite"]
    async with harness(ids=ids, store=store) as run:
        await run.run(kills=kills, within=within)

        print(f"\n{settings.KIND}, {store}: {ids} requests, {dict(run.kills)}")  # noqa: T201 - shown by pytest -s
        assert await elsewhere(run.ledger.verdict) == CLEAN
        assert sum(run.kills.values()) == kills
        assert set(run.kills) == set(POINTS)
        assert set(run.others) <= {0, -signal.SIGTERM}  # or it was told to stop while it was starting
        assert await run.left() == (0, 0)


async def test_the_harness_catches_a_claim_outside_of_the_transaction() -> None:
    async with harness(ids=60, store="check then act") as run:
        await run.run(kills=6, within=60.0)

        verdict = await elsewhere(run.ledger.verdict)
        print(f"\n{settings.KIND}: check then act, {dict(run.kills)}, {verdict}")  # noqa: T201
        assert verdict.doubled > 0
        assert verdict.different > 0
