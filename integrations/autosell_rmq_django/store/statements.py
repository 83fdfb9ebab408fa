"""The statements on the idempotency records: each says what it needs in the database's own SQL and clock."""

from __future__ import annotations

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper

from autosell_rmq_django.store.dialect import Dialect


class Statements:
    """The SQL, written once for a database."""

    def __init__(self, connection: BaseDatabaseWrapper, dialect: Dialect) -> None:
        quoted = connection.ops.quote_name
        table = quoted(apps.get_model("autosell_rmq", "IdempotencyRecord")._meta.db_table)
        outbox = quoted(apps.get_model("autosell_rmq", "OutboxMessage")._meta.db_table)
        names = ("id", "key", "queue", "correlation_id", "fingerprint", "attempt", "lease_token", "state")
        id_, key, queue, correlation_id, fingerprint, attempt, token, state = map(quoted, names)
        more = ("reply", "has_outbox", "created", "completed", "expires", "record_id", "sent")
        reply, has_outbox, created, completed, expires, record_id, sent = map(quoted, more)
        note_state, note_data, note_expires = map(quoted, ("note_state", "note_data", "note_expires"))
        now, later = dialect.now, dialect.later
        binary = "_binary %s" if connection.vendor == "mysql" else "%s"
        about = (queue, correlation_id, fingerprint, attempt, token)
        mine = f"{key} = %s AND {token} = %s"

        selected = (
            f"SELECT {key}, {id_}, {state}, {fingerprint}, {reply}, {token}, {has_outbox}, {expires} > {now},"
            f" {dialect.epoch.format(expires)}, {note_state}, {note_data}, {note_expires} > {now},"
            f" {dialect.epoch.format(note_expires)} FROM {table} WHERE {key}"
        )
        self.select = f"{selected} = %s"
        self.select_many = f"{selected} IN "
        self.insert = (
            f"INSERT INTO {table} ({key}, {', '.join(about)}, {state}, {has_outbox}, {created}, {expires})"
            f" VALUES (%s, %s, %s, %s, %s, %s, 'processing', FALSE, {now}, {later})"
            + dialect.ignore.format(key=key, id=id_)
        )
        self.overwrite = (
            f"UPDATE {table} SET {', '.join(f'{name} = %s' for name in about)}, {state} = 'processing',"
            f" {reply} = NULL, {has_outbox} = FALSE, {created} = {now}, {completed} = NULL,"
            f" {expires} = {later} WHERE {id_} = %s"
        )
        self.finish = (
            f"UPDATE {table} SET {state} = 'done', {reply} = {binary}, {has_outbox} = %s,"
            f" {completed} = {now}, {expires} = {later}, {note_state} = '', {note_data} = NULL,"
            f" {note_expires} = NULL WHERE {mine}"
        )
        self.release = f"DELETE FROM {table} WHERE {mine} AND {state} = 'processing'"
        self.uncover = (
            f"UPDATE {table} SET {state} = {note_state}, {expires} = {note_expires}, {token} = ''"
            f" WHERE {mine} AND {state} = 'processing' AND {note_expires} > {now}"
        )
        self.insert_note = (
            f"INSERT INTO {table} ({key}, {', '.join(about)}, {note_state}, {note_data}, {note_expires},"
            f" {state}, {expires}, {has_outbox}, {created})"
            f" VALUES (%s, %s, %s, %s, %s, %s, %s, {binary}, {later}, %s, {later}, FALSE, {now})"
            + dialect.ignore.format(key=key, id=id_)
        )
        noted = f"{note_state} = %s, {note_data} = {binary}, {note_expires} = {later}"
        self.note = f"UPDATE {table} SET {noted} WHERE {id_} = %s"
        self.overwrite_by_note = (
            f"UPDATE {table} SET {', '.join(f'{name} = %s' for name in about)}, {noted}, {state} = %s,"
            f" {expires} = {later}, {reply} = NULL, {has_outbox} = FALSE, {created} = {now},"
            f" {completed} = NULL WHERE {id_} = %s"
        )
        self.unsent = f"SELECT 1 FROM {outbox} WHERE {record_id} = %s AND {sent} IS NULL LIMIT 1"
