"""The admin: what it shows of foreign data, what it lets whom delete, and what it asks the database."""

import datetime as dt
import json

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from autosell_rmq_django.admin import IdempotencyRecordAdmin, OutboxMessageAdmin, lists, read_only
from autosell_rmq_django.admin.read_only import ReadOnlyAdmin
from autosell_rmq_django.models import IdempotencyRecord, OutboxMessage
from tests.django.connection_fixtures import Run, in_thread

__all__ = ["in_thread"]

pytestmark = pytest.mark.django_db

RECORDS = "/admin/autosell_rmq/idempotencyrecord/"
OUTBOX = "/admin/autosell_rmq/outboxmessage/"
SCRIPT = "<script>alert('x')</script>"
HOUR = dt.timedelta(hours=1)

made = 0


def record(**changes: object) -> IdempotencyRecord:
    global made
    made += 1
    fields = {
        "key": f"{made:064x}",
        "queue": "orders",
        "correlation_id": f"order-{made}",
        "fingerprint": "f" * 64,
        "state": "done",
        "reply": b'{"total": 49.0}',
        "completed": timezone.now(),
        "expires": timezone.now() + HOUR,
        **changes,
    }
    return IdempotencyRecord.objects.create(**fields)


def outbox_message(**changes: object) -> OutboxMessage:
    global made
    made += 1
    fields = {
        "exchange": "shop.events",
        "exchange_type": "topic",
        "routing_key": "order.created",
        "body": b'{"id": 1}',
        "correlation_id": f"order-{made}",
        "message_id": f"message-{made}",
        "available": timezone.now() + HOUR,
        **changes,
    }
    return OutboxMessage.objects.create(**fields)


@pytest.fixture
def client() -> Client:
    """A superuser's."""
    user = User.objects.create_superuser("root", password="x")
    client = Client()
    client.force_login(user)
    return client


def client_with(*permissions: str) -> Client:
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def page(client: Client, url: str, **query: str | int) -> str:
    response = client.get(url, query)
    assert response.status_code == 200
    return response.content.decode()


def act(client: Client, url: str, action: str, *rows: Model, sure: bool = False) -> HttpResponse:
    data = {"action": action, "_selected_action": [row.pk for row in rows]}
    return client.post(url, data | ({"post": "yes"} if sure else {}), follow=True)  # type: ignore[return-value]


# --- foreign data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        json.dumps({"note": SCRIPT, SCRIPT: 1}).encode(),
        SCRIPT.encode(),
        json.dumps(SCRIPT).encode(),
        b"\xff" + SCRIPT.encode(),
        b"x" * 300_000 + SCRIPT.encode(),
    ],
)
def test_no_script_of_a_message_reaches_a_page(client: Client, reply: bytes) -> None:
    row = record(correlation_id=SCRIPT, queue=SCRIPT, reply=reply, has_outbox=True)
    message = outbox_message(
        record=row,
        body=reply,
        correlation_id=SCRIPT,
        message_id=SCRIPT,
        exchange=SCRIPT,
        routing_key=SCRIPT,
        ordering_key=SCRIPT,
        error=SCRIPT,
        attempts=1,
        options={"headers": {"$table": {"a": SCRIPT}}, "type": SCRIPT},
    )
    sent = outbox_message(correlation_id=SCRIPT, message_id=f"{SCRIPT}2", sent=timezone.now())
    pages = [
        page(client, RECORDS),
        page(client, RECORDS, queue=SCRIPT, q=SCRIPT),
        page(client, f"{RECORDS}{row.pk}/change/"),
        page(client, f"{RECORDS}{row.pk}/delete/"),
        act(client, RECORDS, "delete_selected", row).content.decode(),
        page(client, OUTBOX),
        page(client, OUTBOX, q=SCRIPT),
        page(client, f"{OUTBOX}{message.pk}/change/"),
        page(client, f"{OUTBOX}{sent.pk}/delete/"),
        act(client, OUTBOX, "delete_selected", sent).content.decode(),
    ]

    assert [number for number, text in enumerate(pages) if "<script>alert" in text] == []
    assert [number for number, text in enumerate(pages) if "&lt;script&gt;alert" not in text] == []


def test_json_is_indented_and_its_letters_are_kept(client: Client) -> None:
    row = record(reply='{"name": "Лампа", "lines": [1, 2]}'.encode())

    text = page(client, f"{RECORDS}{row.pk}/change/")

    assert "{\n  &quot;name&quot;: &quot;Лампа&quot;,\n  &quot;lines&quot;: [\n    1," in text
    assert "JSON, 39\xa0bytes" in text


def test_characters_that_cannot_be_seen_are_shown_as_escapes(client: Client) -> None:
    """A lone surrogate could not even be sent to the browser."""
    row = record(correlation_id="abc\u202edef", reply=b'{"a": "\\ud800", "b": "\\u202e", "c": "\\u0000"}')

    text = page(client, f"{RECORDS}{row.pk}/change/")

    assert r"abc\u202edef" in text
    assert r"&quot;a&quot;: &quot;\ud800&quot;" in text
    assert r"&quot;b&quot;: &quot;\u202e&quot;" in text
    assert "\u202e" not in text.partition('id="idempotencyrecord_form"')[2]


def test_bytes_that_are_no_text_are_dumped(client: Client) -> None:
    message = outbox_message(body=bytes(range(256)) * 4)

    text = page(client, f"{OUTBOX}{message.pk}/change/")

    assert "0000  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f  ................" in text
    assert "0040  40 41 42" in text
    assert "@ABCDEFGHIJKLMNO" in text
    assert "binary, 1.0\xa0KB, the beginning:" in text


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (None, None),
        (b"", "text, 0\xa0bytes"),
        (b"[" * 100_000, "text, 97.7\xa0KB"),
        (b"9" * 5000, "text, 4.9\xa0KB"),
        (b"NaN", "JSON, 3\xa0bytes"),
        ("я".encode() * 200_000, "text, 390.6\xa0KB, the beginning:"),
        (b'x"' + "я".encode() * 200_000, "text, 390.6\xa0KB, the beginning:"),
    ],
)
def test_no_result_breaks_the_page(client: Client, reply: bytes | None, kind: str | None) -> None:
    row = record(reply=reply)

    text = page(client, f"{RECORDS}{row.pk}/change/")

    assert len(text) < 200_000
    assert (kind in text) if kind else ("autosell-rmq-body" not in text)


# --- finding ---------------------------------------------------------------------------------------------


def test_records_are_found_by_part_of_the_correlation_id_or_by_their_key(client: Client) -> None:
    one, other = record(correlation_id="shop 17 a"), record(correlation_id="shop 18 b")

    assert shown(client, RECORDS, q="17 a") == [one.pk]
    assert shown(client, RECORDS, q=other.key.upper()) == [other.pk]
    assert shown(client, RECORDS, q="shop") == [other.pk, one.pk]
    assert shown(client, RECORDS, q="%") == []


def test_records_are_filtered_by_queue_state_and_validity(client: Client) -> None:
    done = record(queue="billing")
    over = record(expires=timezone.now() - HOUR)
    running = record(state="processing", reply=None, completed=None)

    assert shown(client, RECORDS, queue="billing") == [done.pk]
    assert shown(client, RECORDS, state__exact="processing") == [running.pk]
    assert shown(client, RECORDS, counts="0") == [over.pk]
    assert shown(client, RECORDS, counts="1", queue="orders") == [running.pk]
    text = page(client, RECORDS)
    assert 'href="?queue=billing"' in text
    assert 'href="?queue=orders"' in text
    assert shown(client, RECORDS, queue="unknown") == []


def test_the_outbox_is_filtered_and_searched(client: Client) -> None:
    waiting = outbox_message(correlation_id="a-1")
    failing = outbox_message(attempts=3, error="PublishUnroutable: no queue")
    sent = outbox_message(sent=timezone.now())

    assert shown(client, OUTBOX, state="waiting") == [waiting.pk]
    assert shown(client, OUTBOX, state="failing") == [failing.pk]
    assert shown(client, OUTBOX, state="sent") == [sent.pk]
    assert shown(client, OUTBOX, q=sent.message_id) == [sent.pk]
    assert shown(client, OUTBOX, q="a-1") == [waiting.pk]


def test_a_record_leads_to_its_messages_and_back(client: Client) -> None:
    row = record(has_outbox=True)
    mine = outbox_message(record=row)
    outbox_message()

    assert f'href="{OUTBOX}?record={row.pk}"' in page(client, f"{RECORDS}{row.pk}/change/")
    assert shown(client, OUTBOX, record=row.pk) == [mine.pk]
    assert f'href="{RECORDS}{row.pk}/change/"' in page(client, f"{OUTBOX}{mine.pk}/change/")


def shown(client: Client, url: str, **query: str | int) -> list[int]:
    response = client.get(url, query)
    assert response.status_code == 200
    return [row.pk for row in response.context["cl"].result_list]


# --- what it costs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [RECORDS, OUTBOX])
def test_a_list_counts_no_table_and_loads_no_body(
    client: Client, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    for n in range(4):
        outbox_message(record=record(queue=f"q{n}"))
    monkeypatch.setattr(lists, "MOST", 3)

    with CaptureQueriesContext(connection) as queries:
        response = client.get(url)
    sql = [query["sql"] for query in queries if "autosell_rmq" in query["sql"]]

    assert response.context["cl"].result_count == 3
    counts = [text for text in sql if "COUNT(" in text]
    assert counts
    assert all("LIMIT 3" in text for text in counts)
    assert not any("reply" in text or ".body" in text.replace('"', "").replace("`", "") for text in sql)
    assert len(sql) <= (9 if url == RECORDS else 2)  # each queue's name is one step of an index


# --- who may do what -------------------------------------------------------------------------------------


def test_nothing_can_be_added_or_changed(client: Client) -> None:
    row, message = record(), outbox_message()

    for url, obj in ((RECORDS, row), (OUTBOX, message)):
        assert client.get(f"{url}add/").status_code == 403
        assert client.post(f"{url}{obj.pk}/change/", {"queue": "other"}).status_code == 403
        assert 'name="_save"' not in page(client, f"{url}{obj.pk}/change/")


def test_without_permissions_nothing_is_shown() -> None:
    row = record()
    client = client_with()

    assert client.get(RECORDS).status_code == 403
    assert client.get(f"{RECORDS}{row.pk}/change/").status_code == 403
    assert client.get(OUTBOX).status_code == 403


def test_who_may_only_look_has_no_actions() -> None:
    row, message = record(), outbox_message()
    client = client_with("view_idempotencyrecord", "view_outboxmessage")

    assert 'name="action"' not in page(client, RECORDS)
    assert 'name="action"' not in page(client, OUTBOX)
    assert client.get(f"{RECORDS}{row.pk}/delete/").status_code == 403
    act(client, RECORDS, "delete_selected", row, sure=True)
    act(client, OUTBOX, "send_again", message)
    assert IdempotencyRecord.objects.count() == 1
    assert OutboxMessage.objects.get().available > timezone.now()


def test_sending_again_takes_the_permission_to_change() -> None:
    client = client_with("change_outboxmessage")

    text = page(client, OUTBOX)  # to change is to see, as everywhere in Django
    assert 'value="send_again"' in text
    assert 'value="delete_selected"' not in text


# --- purging ---------------------------------------------------------------------------------------------


def test_purging_asks_and_says_what_it_means(client: Client) -> None:
    row = record()

    text = act(client, RECORDS, "delete_selected", row).content.decode()

    assert "its handler runs again" in text
    assert "Are you sure" in text
    assert IdempotencyRecord.objects.count() == 1
    assert "its handler runs again" in page(client, f"{RECORDS}{row.pk}/delete/")


def test_done_and_expired_records_are_purged_live_claims_are_not(client: Client) -> None:
    done, over = record(), record(state="processing", expires=timezone.now() - HOUR)
    live = record(state="processing", reply=None, completed=None)
    message = outbox_message(record=done)

    asked = act(client, RECORDS, "delete_selected", done, over, live).content.decode()
    answer = act(client, RECORDS, "delete_selected", done, over, live, sure=True).content.decode()

    assert "1 record is left: its message is being handled." in asked
    assert "Successfully deleted 2 idempotency records" in answer
    assert list(IdempotencyRecord.objects.all()) == [live]
    message.refresh_from_db()
    assert message.record is None  # unsent ones stay, and are sent


def test_notes_are_shown_and_purged(client: Client) -> None:
    noted = {"reply": None, "completed": None, "note_expires": timezone.now() + HOUR}
    failed = record(state="failed", note_state="failed", note_data=b'{"error":"<no item>"}', **noted)
    accepted = record(state="accepted", note_state="accepted", **noted)

    assert shown(client, RECORDS, state__exact="failed") == [failed.pk]
    assert "&lt;no item&gt;" in page(client, f"{RECORDS}{failed.pk}/change/")
    act(client, RECORDS, "delete_selected", failed, accepted, sure=True)
    assert IdempotencyRecord.objects.count() == 0


def test_a_live_claim_alone_is_not_even_asked_about(client: Client) -> None:
    live = record(state="processing")

    text = act(client, RECORDS, "delete_selected", live).content.decode()

    assert "1 record is left" in text
    assert "Are you sure" not in text
    assert client.get(f"{RECORDS}{live.pk}/delete/").status_code == 403
    assert client.post(f"{RECORDS}{live.pk}/delete/", {"post": "yes"}).status_code == 403
    assert "deletelink" not in page(client, f"{RECORDS}{live.pk}/change/")
    assert IdempotencyRecord.objects.count() == 1


def test_one_record_is_deleted_from_its_page(client: Client) -> None:
    row = record()

    assert "deletelink" in page(client, f"{RECORDS}{row.pk}/change/")
    client.post(f"{RECORDS}{row.pk}/delete/", {"post": "yes"})

    assert not IdempotencyRecord.objects.exists()


def test_a_claim_that_came_between_the_question_and_the_answer_is_left() -> None:
    row = record()
    site_admin = IdempotencyRecordAdmin(IdempotencyRecord, admin.site)
    chosen = IdempotencyRecord.objects.filter(pk=row.pk)
    IdempotencyRecord.objects.update(state="processing")

    site_admin.delete_queryset(None, chosen)  # type: ignore[arg-type]

    assert IdempotencyRecord.objects.count() == 1


def test_a_purge_takes_no_more_than_the_page_that_asks_can_post(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_only, "_AT_ONCE", 2)
    rows = [record() for _ in range(3)]

    asked = act(client, RECORDS, "delete_selected", *rows)

    assert "2 at a time are purged here; manage.py rmq_purge" in asked.content.decode()
    assert asked.content.decode().count('name="_selected_action"') == 2


def test_only_sent_messages_leave_the_outbox(client: Client) -> None:
    waiting, sent = outbox_message(), outbox_message(sent=timezone.now())

    asked = act(client, OUTBOX, "delete_selected", waiting, sent).content.decode()
    act(client, OUTBOX, "delete_selected", waiting, sent, sure=True)

    assert "1 message is left: it is not sent yet." in asked
    assert list(OutboxMessage.objects.all()) == [waiting]
    assert client.get(f"{OUTBOX}{waiting.pk}/delete/").status_code == 403


# --- sending again ---------------------------------------------------------------------------------------


def test_sending_again_makes_it_due_with_all_its_attempts(client: Client) -> None:
    failing = outbox_message(attempts=7, error="PublishUnroutable: no queue")
    sent = outbox_message(sent=timezone.now(), attempts=1)

    text = act(client, OUTBOX, "send_again", failing, sent).content.decode()

    assert "1 message is due now." in text
    assert "1 message is left: it is sent, or being sent right now." in text
    failing.refresh_from_db()
    sent.refresh_from_db()
    assert failing.available <= timezone.now() + dt.timedelta(seconds=1)
    assert (failing.attempts, failing.sent) == (0, None)
    assert sent.attempts == 1


@pytest.mark.django_db(transaction=True)
def test_a_row_that_is_being_sent_is_neither_waited_for_nor_touched(in_thread: Run) -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("this database locks no single rows")
    message = outbox_message(attempts=1)
    client = Client()
    client.force_login(User.objects.create_superuser("root"))

    with transaction.atomic():
        OutboxMessage.objects.select_for_update().get()
        text = in_thread(lambda: act(client, OUTBOX, "send_again", message).content.decode())

    assert "1 message is left: it is sent, or being sent right now." in text


# --- where the records are -------------------------------------------------------------------------------


@pytest.mark.django_db(databases=["default", "other"])
def test_the_records_of_another_database_are_shown(client: Client) -> None:
    record(correlation_id="in default")
    IdempotencyRecord.objects.using("other").create(
        key="o", queue="q", correlation_id="in other", state="done", expires=timezone.now() + HOUR
    )

    with override_settings(AUTOSELL_RMQ={"IDEMPOTENCY": {"DATABASE": "other"}}):
        text = page(client, RECORDS)

    assert "in other" in text
    assert "in default" not in text


@pytest.mark.parametrize(
    ("model", "site_admin"),
    [(IdempotencyRecord, IdempotencyRecordAdmin), (OutboxMessage, OutboxMessageAdmin)],
)
def test_every_column_of_the_model_is_shown(model: type[Model], site_admin: type[ReadOnlyAdmin]) -> None:
    """So that a new one is not forgotten."""
    shown = {str(name) for _, options in site_admin.fieldsets or () for name in options["fields"]}
    aliases = {
        "queue": "queue_shown",
        "correlation_id": "correlation_id_shown",
        "message_id": "message_id_shown",
        "reply": "result",
        "note_data": "note",
        "has_outbox": "outbox",
        "record": "written_by",
        "exchange": "destination",
        "routing_key": "destination",
        "ordering_key": "order",
        "body": "body_shown",
        "options": "options_shown",
        "error": "error_shown",
    }
    fields = {aliases.get(field.name, field.name) for field in model._meta.fields if field.name != "id"}

    assert fields <= shown
