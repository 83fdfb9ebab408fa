"""What `import autosell_rmq` brings along: as little as may be, since every command pays for it."""

import subprocess
import sys

# Each is imported where it is used.
LATER = {"aio_pika", "aiormq", "django", "fastapi", "pydantic", "redis", "rich", "typer", "uvloop", "yaml"}


def test_the_import_is_light() -> None:
    code = "import sys, autosell_rmq; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not LATER & set(done.stdout.split())
