"""Inside of a test's own transaction: Django's `TestCase`, pytest's ``django_db``; savepoints do the work."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import TestCase

from autosell_rmq import Call, Stored
from autosell_rmq_django.models import IdempotencyRecord
from autosell_rmq_django.store.context import current_transaction
from autosell_rmq_django.store.exactly_once import Ended
from tests.django.shop.models import Effect
from tests.django.store_fixtures import FIRST, KEY, Work, effects, exactly_once, record, records


def run(function: Callable[[], bytes], key: str = KEY) -> Ended:
    """As a helper for tests does: in the test's own thread."""

    async def never() -> bytes:
        raise AssertionError

    return exactly_once().run(key, FIRST, Call(run=never, run_sync=function))


class InATestCase(TestCase):
    def test_effect_and_result_are_there(self) -> None:
        assert run(Work(b"result")).stored == Stored(data=b"result", fingerprint=FIRST, duplicate=False)
        assert run(Work()).stored == Stored(data=b"result", fingerprint=FIRST, duplicate=True)
        assert effects() == ["1"]
        assert record().state == "done"

    def test_of_a_failure_nothing_is_left_and_the_test_goes_on(self) -> None:
        Effect.objects.create(key="of the test")

        def fail() -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            run(Work(then=fail))

        assert effects("effect") == []
        assert effects("of the test") == [""]
        assert records() == 0
        assert not run(Work()).stored.duplicate

    def test_a_broken_statement_of_the_handler_is_undone(self) -> None:
        def fail() -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT * FROM there_is_no_such_table")

        with pytest.raises(Exception, match="there_is_no_such_table"):
            run(Work(then=fail))

        assert effects() == []
        assert not run(Work()).stored.duplicate

    def test_hooks_are_those_of_the_handler_alone(self) -> None:
        seen: list[str] = []

        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            run(Work(then=lambda: transaction.on_commit(lambda: seen.append("hook"))))
            assert seen == []

        assert len(callbacks) == 1
        assert seen == ["hook"]

    def test_the_handler_knows_its_transaction(self) -> None:
        seen: list[Any] = []

        ended = run(Work(then=lambda: seen.append(current_transaction())))

        assert seen[0].record_id == ended.record_id == IdempotencyRecord.objects.get().id
        assert current_transaction() is None


@pytest.mark.django_db
def test_each_test_begins_empty() -> None:
    assert records() == 0
    run(Work())
