"""`rmq_purge`: what goes, what stays, in which steps, and beside running handlers."""

import asyncio
import datetime as dt
import io
import threading
import uuid
from functools import partial

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from autosell_rmq import Call
from autosell_rmq_django import purge
from autosell_rmq_django.models import IdempotencyRecord, OutboxMessage
from tests.contract.store_fixtures import Work as AsyncWork
from tests.django.store_fixtures import (
    FIRST,
    KEY,
    Connect,
    Threads,
    Work,
    connect,
    elsewhere,
    records,
    reply,
    started,
    threads,
)

__all__ = ["connect", "threads"]

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.timeout(60),
]

DAY = dt.timedelta(days=1)


def a_record(
    *, done: dt.timedelta | None = None, expires: dt.timedelta, has_outbox: bool = False
) -> IdempotencyRecord:
    """A record, its times said from now."""
    now = timezone.now()
    return IdempotencyRecord.objects.create(
        key=uuid.uuid4().hex * 2,
        queue="orders",
        fingerprint=FIRST,
        state="processing" if done is None else "done",
        reply=None if done is None else b"{}",
        lease_token="t",
        has_outbox=has_outbox,
        completed=None if done is None else now + done,
        expires=now + expires,
    )


def a_note(
    *, expires: dt.timedelta, seen: dt.timedelta = dt.timedelta(), lease: dt.timedelta | None = None
) -> IdempotencyRecord:
    """An accepted message, or a note beneath a claim whose `lease` is given."""
    now = timezone.now()
    row = IdempotencyRecord.objects.create(
        key=uuid.uuid4().hex * 2,
        queue="orders",
        state="accepted" if lease is None else "processing",
        note_state="accepted",
        note_expires=now + expires,
        expires=now + (expires if lease is None else lease),
    )
    IdempotencyRecord.objects.filter(pk=row.pk).update(created=now + seen)
    return row


def a_message(*, sent: dt.timedelta | None, record: IdempotencyRecord | None = None) -> OutboxMessage:
    now = timezone.now()
    return OutboxMessage.objects.create(
        record=record,
        routing_key="events",
        body=b"{}",
        correlation_id="c",
        message_id=uuid.uuid4().hex,
        available=now,
        sent=None if sent is None else now + sent,
    )


def rmq_purge(*args: str) -> str:
    out = io.StringIO()
    call_command("rmq_purge", *args, stdout=out)
    return out.getvalue()


def kept(model: type[IdempotencyRecord | OutboxMessage]) -> set[int]:
    return set(model._default_manager.values_list("id", flat=True))


def test_what_has_expired_goes() -> None:
    stays = [
        a_record(done=-6 * DAY, expires=DAY),
        a_record(expires=DAY / 1000),  # a live lease
        a_note(expires=DAY),
        a_note(expires=DAY, lease=-DAY / 1000),
    ]
    a_note(expires=-DAY / 1000)
    a_note(expires=-DAY / 1000, lease=-DAY)
    for _ in range(3):
        a_record(done=-8 * DAY, expires=-DAY)
    a_record(expires=-DAY / 1000)  # the claim of a worker that crashed
    messages = [a_message(sent=None), a_message(sent=-DAY / 2)]
    a_message(sent=-2 * DAY)

    said = rmq_purge()

    assert said == "deleted: 6 idempotency records, 1 outbox messages\n"
    assert kept(IdempotencyRecord) == {row.id for row in stays}
    assert kept(OutboxMessage) == {row.id for row in messages}
    assert rmq_purge() == "deleted: 0 idempotency records, 0 outbox messages\n"


def test_a_dry_run_only_counts() -> None:
    a_record(done=-8 * DAY, expires=-DAY)
    a_message(sent=-2 * DAY)

    assert rmq_purge("--dry-run") == "to be deleted: 1 idempotency records, 1 outbox messages\n"
    assert (len(kept(IdempotencyRecord)), len(kept(OutboxMessage))) == (1, 1)


@pytest.mark.parametrize("age", ["172800", "172800s", "2880m", "48h", "2d", "2.0D"])
def test_older_than_counts_instead_of_the_expiry(age: str) -> None:
    young = [
        a_record(done=-DAY, expires=-DAY / 2),
        a_record(expires=-DAY),
        a_record(expires=DAY),
        a_note(expires=DAY, seen=-DAY),
    ]
    a_note(expires=DAY, seen=-3 * DAY)
    a_record(done=-3 * DAY, expires=4 * DAY)
    a_record(expires=-3 * DAY)
    messages = [a_message(sent=-DAY), a_message(sent=None)]
    a_message(sent=-3 * DAY)

    assert rmq_purge("--older-than", age) == "deleted: 3 idempotency records, 1 outbox messages\n"
    assert kept(IdempotencyRecord) == {row.id for row in young}
    assert kept(OutboxMessage) == {row.id for row in messages}


@pytest.mark.parametrize("age", ["soon", "-1", "7w", ""])
def test_an_age_that_cannot_be_read(age: str) -> None:
    with pytest.raises(CommandError, match="is no age"):
        rmq_purge(f"--older-than={age}")


def test_an_unknown_database() -> None:
    with pytest.raises(CommandError, match="no database 'nowhere'"):
        rmq_purge("--database", "nowhere")


def test_another_database() -> None:
    a_record(done=-8 * DAY, expires=-DAY)

    assert rmq_purge("--database", "other") == "deleted: 0 idempotency records, 0 outbox messages\n"
    with override_settings(AUTOSELL_RMQ={"IDEMPOTENCY": {"DATABASE": "other"}}):
        assert rmq_purge() == "deleted: 0 idempotency records, 0 outbox messages\n"
    assert rmq_purge() == "deleted: 1 idempotency records, 0 outbox messages\n"


def test_it_goes_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "BATCH", 10)
    for _ in range(25):
        a_record(done=-8 * DAY, expires=-DAY)

    with CaptureQueriesContext(connection) as queries:
        said = rmq_purge("--verbosity", "2")

    assert said.splitlines() == [
        *(f"a batch: {n} idempotency records, 0 outbox messages" for n in (10, 10, 5)),
        "deleted: 25 idempotency records, 0 outbox messages",
    ]
    limited = [q["sql"] for q in queries if q["sql"].startswith("SELECT")]
    assert all("LIMIT 10" in sql for sql in limited)


def test_an_unsent_message_outlives_the_record_that_wrote_it() -> None:
    row = a_record(done=-8 * DAY, expires=-DAY, has_outbox=True)
    message = a_message(sent=None, record=row)

    rmq_purge()

    message.refresh_from_db()
    assert message.record is None


async def test_a_claim_under_a_lease_is_never_deleted(connect: Connect) -> None:
    store = await connect()
    gate = asyncio.Event()
    work = AsyncWork(b"result", gate=gate)
    running = asyncio.create_task(store.run_once(KEY, FIRST, Call(run=work.run)))
    await work.started.wait()

    for arguments in ([], ["--older-than", "0"]):
        assert "deleted: 0 " in await elsewhere(partial(rmq_purge, *arguments))
    found = await store.lookup(KEY)
    assert found is not None
    assert found.state == "processing"

    gate.set()
    assert not (await running).duplicate


async def test_nor_an_expired_record_that_a_transaction_claims_anew(
    connect: Connect, threads: Threads
) -> None:
    """On SQLite the purge waits for its turn, and then the record is alive."""
    store = await connect()
    await store.run_once(KEY, FIRST, threads.call(Work(b"old")))
    past = timezone.now() - DAY
    await elsewhere(lambda: IdempotencyRecord.objects.update(expires=past))
    gate = threading.Event()
    work = Work(b"new", gate=gate)
    running = asyncio.create_task(store.run_once(KEY, FIRST, threads.call(work)))
    await started(work)

    purging = asyncio.create_task(elsewhere(rmq_purge))
    await asyncio.wait([purging], timeout=0.5)
    gate.set()

    assert "deleted: 0 " in await purging
    assert not (await running).duplicate
    assert (await elsewhere(reply)) == b"new"
    assert (await store.run_once(KEY, FIRST, threads.call(Work()))).data == b"new"


async def test_after_its_result_is_deleted_a_late_duplicate_runs_again(
    connect: Connect, threads: Threads
) -> None:
    """So the ttl has to be longer than a message may be on its way: documented, not prevented."""
    store = await connect()
    await store.run_once(KEY, FIRST, threads.call(Work()))
    await elsewhere(lambda: rmq_purge("--older-than", "0"))
    assert await elsewhere(records) == 0

    assert not (await store.run_once(KEY, FIRST, threads.call(Work()))).duplicate
