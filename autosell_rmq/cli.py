"""The command line: ``autosell-rmq run module:app``, ``send``, ``asyncapi module:app``, ``version``."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from autosell_rmq.app import RabbitMQ
from autosell_rmq.asyncapi import asyncapi_document, asyncapi_json, asyncapi_yaml
from autosell_rmq.codec import decode
from autosell_rmq.exceptions import AutosellRmqError, ConfigError, DecodeError
from autosell_rmq.health_file import HealthFile
from autosell_rmq.loops import loop_factory
from autosell_rmq.producer import RabbitMQProducer

cli = typer.Typer(
    name="autosell-rmq",
    help="RabbitMQ for Django and FastAPI services: run consumers, send messages.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True)

Url = Annotated[
    str | None,
    typer.Option("--url", help="The broker. By default RABBITMQ_URL, else amqp://guest:guest@localhost/."),
]


Target = Annotated[str, typer.Argument(metavar="MODULE:APP", help="Where the RabbitMQ object is.")]


@cli.command()
def run(
    target: Target,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    health_file: Annotated[
        Path | None,
        typer.Option(help="Written every second while all is well, absent before and after; for a probe."),
    ] = None,
    uvloop: Annotated[
        bool, typer.Option("--uvloop", help="On uvloop's event loop: autosell-rmq[uvloop].")
    ] = False,
) -> None:
    """Consume until SIGINT or SIGTERM; the first drains, the second leaves at once."""
    _log(log_level)
    loops = loop_factory(uvloop=uvloop)
    app = load(target)
    file = HealthFile(health_file) if health_file is not None else None
    try:
        asyncio.run(_run(app, file), loop_factory=loops)
    finally:
        if file is not None:
            file.remove()


@cli.command()
def send(
    queue: Annotated[str, typer.Argument(help="An existing queue.")],
    data: Annotated[str, typer.Argument(metavar="JSON", help="The payload; - reads standard input.")],
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for the reply.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the reply.")] = 30.0,
    correlation_id: Annotated[str | None, typer.Option(help="By default a new one.")] = None,
    url: Url = None,
) -> None:
    """Send one message and print the reply. Exit code 1 when the reply is an error."""
    raw = sys.stdin.read() if data == "-" else data
    try:
        payload = decode(raw.encode("utf-8", "surrogateescape"))
    except DecodeError as error:
        raise ConfigError(f"the payload is no JSON: {error}") from None
    reply = asyncio.run(
        _send(url, queue, payload, wait=not no_wait, timeout=timeout, correlation_id=correlation_id)
    )
    Console().print_json(data=reply)
    if reply.get("success") is False:
        raise typer.Exit(1)


@cli.command()
def asyncapi(
    target: Target,
    yaml: Annotated[bool, typer.Option("--yaml", help="YAML instead of JSON.")] = False,
    title: Annotated[str | None, typer.Option(help="By default the module's package.")] = None,
    version: Annotated[str, typer.Option(help="The application's version.")] = "0.1.0",
    description: Annotated[str | None, typer.Option(help="Of the application.")] = None,
) -> None:
    """Print the app as an AsyncAPI 3.0 document; it connects to nothing."""
    document = asyncapi_document(
        load(target),
        title=title or target.split(":")[0].split(".")[0],
        version=version,
        description=description,
    )
    typer.echo(asyncapi_yaml(document).rstrip() if yaml else asyncapi_json(document))


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"autosell-rmq {installed_version('autosell-rmq')}")


def load(target: str) -> RabbitMQ:
    """Import ``module:attribute`` from the working directory or the installed packages.

    Raises:
        ConfigError: it cannot be imported, or is no `RabbitMQ`.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{target!r}: expected MODULE:APP, such as shop.messaging:rmq")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{target!r}: cannot import {module_name}: {error}") from error
    app: object = module
    for name in attribute.split("."):
        if not hasattr(app, name):
            raise ConfigError(f"{target!r}: module {module_name} has no {attribute!r}")
        app = getattr(app, name)
    if not isinstance(app, RabbitMQ):
        raise ConfigError(f"{target!r} is a {type(app).__name__}, expected a RabbitMQ object")
    return app


async def _run(app: RabbitMQ, file: HealthFile | None) -> None:
    beating = asyncio.create_task(_beat(app, file)) if file is not None else None
    try:
        async with app:
            await app.run()
    finally:
        if beating is not None:
            beating.cancel()


async def _beat(app: RabbitMQ, file: HealthFile) -> None:
    while True:
        health = app.health
        if health.ready and health.consumers:
            file.write(health)
        await asyncio.sleep(1.0)


async def _send(
    url: str | None, queue: str, payload: object, *, wait: bool, timeout: float, correlation_id: str | None
) -> dict[str, object]:
    async with RabbitMQProducer(url, startup_timeout=min(timeout, 30.0)) as producer:
        return await producer.send_message(queue, payload, wait, timeout, correlation_id)


def _log(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigError(f"--log-level {level!r}: expected debug, info, warning or error")
    logging.basicConfig(
        level=number,
        format="%(message)s" if errors.is_terminal else "%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[RichHandler(console=errors, show_path=False)] if errors.is_terminal else None,
    )


def main() -> None:
    """The script's entry point: an error of ours is one line on standard error, and exit code 1."""
    try:
        cli()
    except AutosellRmqError as error:
        errors.print(f"[red]error:[/red] {type(error).__name__}: ", end="")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
