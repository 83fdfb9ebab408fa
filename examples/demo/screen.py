"""What the demo prints: one console, a column that says who speaks, and a memory of what was said."""

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from typing import Any, override

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

console = Console(highlight=False)

_COLOURS = {"consumer": "cyan", "producer": "green", "demo": "magenta", "client": "green", "gateway": "cyan"}
_STORY = ("autosell_rmq.signals", "autosell_rmq.consumer.consumer", "autosell_rmq.consumer.group")
_TOLD_FIELDS = (
    "original_body",
    "reason",
    "failed_at",
    "correlation_id",
    "original_queue",
    "reason_code",
    "attempts",
    "error_type",
)
_INDENT = 11  # columns of the speaker and the line behind it


class Transcript:
    """Everything that was said, by either process, to wait for."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._changed = asyncio.Event()

    def add(self, line: str) -> None:
        """Remember a line."""
        self._lines.append(line)
        self._changed.set()

    def count(self, text: str) -> int:
        """How many lines had this text."""
        return sum(text in line for line in self._lines)

    async def has(self, text: str) -> None:
        """Wait until a line with this text was said."""
        while not self.count(text):
            self._changed.clear()
            await self._changed.wait()


transcript = Transcript()


def say(who: str, text: str, style: str = "") -> None:
    """One line of one side."""
    line = Text(f" {who:>8} │ ", style=_COLOURS[who])
    line.append(text, style=style)
    console.print(line, soft_wrap=True)
    transcript.add(text)


def pass_on(line: str) -> None:
    """A line that the other process has said and coloured already."""
    print(line, flush=True)
    transcript.add(line)


def handler_says(text: str) -> None:
    """What the shop's handler does, told by the process that runs it."""
    say("consumer", f"handler: {text}", "bold cyan")


def banner(*lines: str) -> None:
    """Say first what runs where."""
    console.print(Panel.fit("\n".join(lines), style="magenta"))


def heading(title: str, promise: str) -> None:
    """Open a scene."""
    console.print(f"\n[bold]{title}[/bold] [dim]- {promise}[/dim]", soft_wrap=True)


def reply(answer: Mapping[str, Any]) -> None:
    """A reply as the producer got it."""
    say("producer", f"reply: {json.dumps(answer)}", "bold green" if answer["success"] else "bold red")


def letter(dlq: str, envelope: Mapping[str, Any]) -> None:
    """A dead letter: what went wrong; that the message itself is in it only in a word."""
    fields = Table.grid(padding=(0, 2))
    for name in _TOLD_FIELDS:
        fields.add_row(Text(name, style="bold"), Text(str(envelope[name])))
    rest = [name for name in envelope if name not in _TOLD_FIELDS]
    fields.add_row(
        Text("…", style="dim"), Text(f"and {', '.join(rest)}: a replay restores it whole", style="dim")
    )
    panel = Panel(fields, title=f"in {dlq}", title_align="left", border_style="yellow")
    console.print(Padding(panel, (0, 0, 0, _INDENT)))


class _Told(logging.Handler):
    """The library's own log lines that belong to the story, in the speaker's column."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        warns = record.levelno >= logging.WARNING
        text = re.sub(r"^queue \S+: ", "", record.getMessage())
        text = re.sub(r", \w+=0\b", "", text)  # of the statistics only what happened
        retries = text.startswith("attempt ")
        if warns or retries or record.name in _STORY:
            say("consumer", text, "yellow" if warns else "dim")


def show_log() -> None:
    """Show the library's log in this process."""
    logger = logging.getLogger("autosell_rmq")
    logger.addHandler(_Told())
    logger.setLevel(logging.INFO)
    logger.propagate = False
