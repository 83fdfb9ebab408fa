"""The command line of ``manage.py rmq_consume``, completed from the setting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from django.conf import settings as django_settings

from autosell_rmq import Settings, SettingsKwargs
from autosell_rmq_django.conf import AppSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one call of the command is to do."""

    queues: list[str]
    exclude: list[str]
    prefetch: int | None
    processes: int
    reload: bool
    batch: bool
    max_messages: int | None
    drain_timeout: float
    health_file: Path | None
    uvloop: bool

    @classmethod
    def read(cls, given: dict[str, Any], settings: AppSettings) -> Self:
        """Complete what the command was `given`."""
        batch, file = given["batch"], given["health_file"] or settings.health_file
        timeout = given["drain_timeout"] or settings.core.get("drain_timeout", Settings().drain_timeout)
        reload = given["reload"]
        return cls(
            queues=given["queues"],
            exclude=given["exclude"],
            prefetch=given["prefetch"],
            processes=given["processes"] or settings.processes,
            reload=django_settings.DEBUG and not batch if reload is None else reload,
            batch=batch,
            max_messages=given["max_messages"] or settings.max_messages,
            drain_timeout=timeout,
            health_file=Path(file) if file else None,
            uvloop=given["uvloop"],
        )

    @property
    def described(self) -> str:
        """What it prints of itself."""
        words = [f"{self.processes} process{'es' if self.processes > 1 else ''}"]
        words += ["restarted when a file changes"] if self.reload else []
        words += ["until the queues are empty"] if self.batch else []
        words += [f"until {self.max_messages} messages are settled"] if self.max_messages else []
        return ", ".join(words)

    def arguments(self, given: dict[str, Any]) -> list[str]:
        """The command line of one supervised process; `given` has Django's own options."""
        line = [*self.queues, "--processes=1", f"--drain-timeout={self.drain_timeout}"]
        line += [f"--exclude={queue}" for queue in self.exclude]
        line += ["--reload" if self.reload else "--no-reload", *(["--batch"] if self.batch else [])]
        line += [f"--prefetch={self.prefetch}"] if self.prefetch else []
        line += ["--uvloop"] if self.uvloop else []
        line += [f"--max-messages={self.max_messages}"] if self.max_messages else []
        line += [f"--pythonpath={given['pythonpath']}"] if given.get("pythonpath") else []
        line += ["--traceback"] if given.get("traceback") else []
        line += ["--skip-checks"] if given.get("skip_checks") else []
        return [*line, f"--verbosity={given.get('verbosity', 1)}"]

    @property
    def overrides(self) -> SettingsKwargs:
        """What wins over the setting."""
        overrides: SettingsKwargs = {"drain_timeout": self.drain_timeout}
        if self.prefetch is not None:
            overrides["prefetch"] = self.prefetch
        return overrides
