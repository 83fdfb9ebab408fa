"""``manage.py rmq_purge``: delete what is not needed any more."""

from __future__ import annotations

import argparse
import re
from typing import Any, override

from django.core.management import BaseCommand, CommandError
from django.core.management.base import CommandParser
from django.db import connections

from autosell_rmq import ConfigError
from autosell_rmq_django import conf
from autosell_rmq_django.purge import BATCH, Purge, Purged

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Command(BaseCommand):
    """Deletes in batches: run it as often as you like, while consumers are at work."""

    help = (
        "Delete expired idempotency records, claims that died with their worker, and outbox messages sent"
        f" long ago, {BATCH} rows at a time. A claim that counts is never deleted."
    )

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say how many rows there are.")
        parser.add_argument(
            "--older-than",
            type=_age,
            metavar="AGE",
            help="Instead of what has expired: what was stored, claimed or sent so long ago, as 3600, 90m,"
            " 12h or 7d. A message that comes again after its result was deleted is handled again.",
        )
        parser.add_argument(
            "--database",
            metavar="ALIAS",
            help="Another database than IDEMPOTENCY names, for outboxes that are there.",
        )

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        settings = conf.get_settings()
        alias = options["database"] or settings.idempotency.database
        if alias not in connections:
            raise CommandError(f"there is no database {alias!r} in DATABASES")
        try:
            purge = Purge(alias, older_than=options["older_than"], retention=settings.outbox.retention)
        except ConfigError as error:
            raise CommandError(str(error)) from error
        if options["dry_run"]:
            self._say("to be deleted", purge.count())
            return
        loud = options["verbosity"] > 1
        self._say("deleted", purge.run(self._progress if loud else lambda _: None))

    def _progress(self, batch: Purged) -> None:
        self._say("a batch", batch)

    def _say(self, what: str, purged: Purged) -> None:
        self.stdout.write(f"{what}: {purged.records} idempotency records, {purged.messages} outbox messages")


def _age(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip().lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: write 3600, 90m, 12h or 7d")
    return float(found[1]) * _UNITS[found[2]]
