"""A file that says that a consuming process is well: its age is what a probe looks at."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from autosell_rmq.exceptions import ConfigError
from autosell_rmq.health import Health

logger = logging.getLogger(__name__)


class HealthFile:
    """Written anew while all is well, absent before and after.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.touch()
            path.unlink()
        except OSError as error:
            raise ConfigError(f"the health file {path} cannot be written: {error.strerror}") from error

    def touch(self) -> None:
        """Say that all is well, now, and nothing more."""
        self._write("")

    def write(self, health: Health) -> None:
        """Say that all is well, now, with the details as JSON."""
        self._write(json.dumps(health.as_dict(), indent=2) + "\n")

    def remove(self) -> None:
        """Say that nothing is handled any more."""
        self._path.unlink(missing_ok=True)

    def _write(self, text: str) -> None:
        try:
            self._next.write_text(text)
            self._next.replace(self._path)  # whoever reads it never sees a half of it
        except OSError as error:
            logger.warning("the health file %s cannot be written: %s", self._path, error.strerror)
