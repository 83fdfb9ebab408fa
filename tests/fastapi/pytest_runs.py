"""A pytest of its own, as a project runs it, which has nothing of ours but what is installed."""

import os
import subprocess
import sys
from pathlib import Path

OTHERS = ["randomly", "cacheprovider", "anyio", "django", "hypothesispytest", "timeout"]
INI = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
NOBODY = "amqp://guest:guest@127.0.0.1:1/"  # a test that leaves memory fails


def run_pytest(folder: Path, *options: str, passes: bool = True) -> str:
    """Run the tests of a folder; returns the output."""
    (folder / "pytest.ini").write_text(INI, encoding="utf-8")
    without = [word for name in OTHERS for word in ("-p", f"no:{name}")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *without, *options],
        cwd=folder,
        env={**os.environ, "RABBITMQ_URL": NOBODY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode == 0) == passes, result.stdout + result.stderr
    return result.stdout
