"""``manage.py rmq_consume``: handle the messages of the project's queues."""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, override

from django.core.exceptions import ImproperlyConfigured
from django.core.management import BaseCommand, CommandError
from django.core.management.base import CommandParser, DjangoHelpFormatter
from django.db import Error
from django.utils import autoreload

from autosell_rmq import AutosellRmqError, HealthFile, RabbitMQ, loop_factory
from autosell_rmq_django import checks, conf, consuming
from autosell_rmq_django.conf import AppSettings
from autosell_rmq_django.leaving import leave, own_executor
from autosell_rmq_django.options import Options
from autosell_rmq_django.reloading import run_reloading
from autosell_rmq_django.running import ConsumerLost, Countdown, Process
from autosell_rmq_django.startup import check_migrations, unanswered
from autosell_rmq_django.store import DatabaseStore
from autosell_rmq_django.supervisor import Supervisor
from autosell_rmq_django.tether import Tether, to_supervisor

NAME = "rmq_consume"
LOST = 3  # the exit code

type Loops = Callable[[], asyncio.AbstractEventLoop] | None

_EPILOG = """\
The first SIGINT or SIGTERM drains: no further message is started, running handlers finish within the
drain timeout, what is left goes back to its queue. The second one leaves at once.

exit codes:
  0         stopped by a signal, by --batch or by --max-messages
  1         wrong settings, unapplied migrations, or no broker at the start
  3         the connection or a queue was lost while consuming, for longer than RECONNECT_TIMEOUT
  130, 143  the second SIGINT, the second SIGTERM

With --processes a process that dies is started again, after a while; the parent's exit code is 1 where
none could start.
"""


class _Formatter(DjangoHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Django's order of the options, our line ends."""


class Command(BaseCommand):
    """Consume; what the options leave out is in ``AUTOSELL_RMQ``."""

    help = "Handle the messages of the queues that have a handler in the rmq.py of an installed app."

    @override
    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, epilog=_EPILOG, **kwargs)
        parser.formatter_class = _Formatter
        return parser

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add(
            "queues",
            nargs="*",
            metavar="queue",
            help="Only these queues. By default all that have a handler.",
        )
        add(
            "--exclude", action="append", default=[], metavar="QUEUE", help="Not this queue; may be repeated."
        )
        add("--prefetch", type=_count, metavar="N", help="Messages of each queue in hand at once (PREFETCH).")
        add("--processes", type=_count, metavar="N", help="Supervised processes (PROCESSES, by default 1).")
        add(
            "--reload",
            action=argparse.BooleanOptionalAction,
            help="Restart when a file changes. By default while settings.DEBUG is on.",
        )
        add("--batch", action="store_true", help="Leave once the queues are empty: for cron.")
        add(
            "--max-messages",
            type=_count,
            metavar="N",
            help="Leave after N messages (MAX_MESSAGES); with --processes another process takes over.",
        )
        add(
            "--drain-timeout",
            type=_seconds,
            metavar="S",
            help="Seconds that running handlers have at a stop (DRAIN_TIMEOUT, by default 30).",
        )
        add(
            "--health-file",
            metavar="PATH",
            help="Touched every second while messages are handled, removed at the end (HEALTH_FILE).",
        )
        add("--uvloop", action="store_true", help="On uvloop's event loop: autosell-rmq[uvloop].")

    @override
    def run_from_argv(self, argv: list[str]) -> None:
        code: object = 0
        try:
            super().run_from_argv(argv)
        except SystemExit as end:
            code = end.code
        leave(code if isinstance(code, int) else 1)

    @override
    def check(self, *args: Any, **options: Any) -> None:
        """Django's checks; some ask a database, and tell with a stack of its client that it is down."""
        try:
            super().check(*args, **options)
        except Error as error:
            raise CommandError(unanswered(error)) from error

    @override
    def handle(self, *args: Any, **given: Any) -> None:
        tether = to_supervisor()
        try:
            settings = conf.get_settings()
            options = Options.read(given, settings)
            app = self._app(options)
            loops = loop_factory(uvloop=options.uvloop)
            file = options.health_file if tether is None else None
            health = HealthFile(file) if file is not None else None
        except (ImproperlyConfigured, AutosellRmqError) as error:
            raise CommandError(str(error)) from error
        if options.processes > 1 and not app.store.durable:
            raise CommandError(str(checks.in_memory(options.processes)))
        check_migrations(settings)
        try:
            if tether is None:
                self._announce(app, options, settings)
            if tether is None and (options.processes > 1 or options.reload):
                code = self._supervise(options, given, health)
            else:
                code = self._consume(app, options, settings, tether, health, loops)
        finally:
            if health is not None:
                health.remove()
        if code:
            sys.exit(code)

    def _app(self, options: Options) -> RabbitMQ:
        countdown = Countdown(options.max_messages) if options.max_messages else None
        app = consuming.build_app(
            options.queues or None,
            options.exclude,
            observers=(countdown,) if countdown else (),
            **options.overrides,
        )
        if countdown is not None:
            countdown.app = app
        return app

    def _consume(
        self,
        app: RabbitMQ,
        options: Options,
        settings: AppSettings,
        tether: Tether | None,
        health: HealthFile | None,
        loops: Loops,
    ) -> int:
        """Consume in this process; returns its exit code."""
        process = Process(app=app, settings=settings, batch=options.batch)
        if tether is not None:
            process.on_start = partial(tether.on_loss, app.stop)
            process.on_ready, process.on_beat = tether.ready, lambda _: tether.well()
        else:
            process.on_ready = partial(self._say, "ready; quit with CONTROL-C")
            if health is not None:
                process.on_beat = health.write
        run = partial(self._run, process, loops)
        return run_reloading(run, app.stop, drain_timeout=options.drain_timeout) if options.reload else run()

    def _run(self, process: Process, loops: Loops) -> int:
        async def main() -> None:
            async with own_executor():
                await process.run()

        try:
            asyncio.run(main(), loop_factory=loops)
        except ConsumerLost as error:
            self._complain(f"lost: {error}")
            return LOST
        except AutosellRmqError as error:
            self._complain(str(error))
            return 1
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        return 0

    def _supervise(self, options: Options, given: dict[str, Any], health: HealthFile | None) -> int:
        """Consume in processes of their own; returns the exit code."""
        supervisor = Supervisor(
            command=[*_program(), NAME, *options.arguments(given)],
            processes=options.processes,
            drain_timeout=options.drain_timeout,
            once=options.batch,
            reload=options.reload,
            say=self._say,
        )
        if health is not None:
            supervisor.on_beat = health.touch
        return asyncio.run(supervisor.run())

    # --- what it prints ----------------------------------------------------------------------------------

    def _announce(self, app: RabbitMQ, options: Options, settings: AppSettings) -> None:
        """What is consumed, from where, with what."""
        self._say(f"autosell-rmq {version('autosell-rmq')} consumes from {app.settings.broker_url.redacted}")
        for entry in app.handlers:
            chosen = entry.options(app.settings)
            self._say(
                f"  {entry.queue}: {entry.handler.name} ({'async' if entry.handler.is_async else 'sync'},"
                f" prefetch {chosen.prefetch}, max_retries {chosen.max_retries}, dlq {chosen.dlq})"
            )
        store = type(app.store).__name__
        where = f" in database {app.store.database!r}" if isinstance(app.store, DatabaseStore) else ""
        threads = app.settings.threads or "up to 8"
        self._say(f"  with {store}{where}, {threads} threads for sync handlers, {options.described}")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _complain(self, line: str) -> None:
        self.stderr.write(f"{NAME}: {line}")


def _program() -> list[str]:
    """How this process was started, without its arguments."""
    if sys.argv[1:2] == [NAME]:
        started = [str(part) for part in autoreload.get_child_arguments()]
        return started[: len(started) - len(sys.argv[1:])]
    return [sys.executable, "-m", "django"]  # from code, by call_command


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number >= 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"{text}: expected a number of seconds > 0")
    return number
