"""Pages as Chromium shows them: a picture, and the text that is in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_PATIENCE = 60.0  # seconds for a page, on a busy machine
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # it calls home otherwise
]


def program() -> str:
    """Where it is; the test is skipped where it is not."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("Chromium is not installed")


def screenshot(url: str, file: Path, *, size: str = "1280,900") -> None:
    """Save a page as it is shown."""
    with tempfile.TemporaryDirectory(prefix="rmq-chromium-") as profile:
        subprocess.run(
            [
                program(),
                *FLAGS,
                f"--user-data-dir={profile}",
                f"--window-size={size}",
                "--virtual-time-budget=5000",
                f"--screenshot={file}",
                url,
            ],
            check=True,
            capture_output=True,
            timeout=_PATIENCE,
            env={**os.environ, "HOME": profile},
        )
