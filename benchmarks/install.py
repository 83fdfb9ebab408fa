"""What the peers need: an environment of their own, and the C program compiled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.services import apt

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / "peers"
ENVIRONMENT = ROOT / ".venv-bench"
REQUIREMENTS = PEERS / "requirements.txt"
BUILD = ROOT / "build" / "bench"
SHOWN = (
    "aio-pika",
    "aiormq",
    "faststream",
    "taskiq",
    "taskiq-aio-pika",
    "celery",
    "dramatiq",
    "pika",
    "uvloop",
)


def peers_python() -> Path:
    """The Python of the peers' environment, which is made where it is missing or out of date.

    Their pins need not go together with ours; ours is untouched.
    """
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / ".requirements"
    wanted = REQUIREMENTS.read_text()
    if not (stamp.exists() and stamp.read_text() == wanted):
        print("bench: installing the peers into .venv-bench", flush=True)
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
        subprocess.run([str(python), *install], check=True)
        stamp.write_text(wanted)
    return python


def limit_program() -> tuple[Path | None, str]:
    """The compiled C program; None with the reason where it cannot be had."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None, "no C compiler"
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / "limit"
    if (problem := _compiled(compiler, program)) and apt("librabbitmq-dev"):
        problem = _compiled(compiler, program)
    return (None, f"librabbitmq cannot be compiled against: {problem}") if problem else (program, "")


def _compiled(compiler: str, program: Path) -> str:
    source = PEERS / "limit.c"
    command = [compiler, "-O2", "-o", str(program), str(source), "-lrabbitmq"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = result.stderr.strip().splitlines()
    return "" if result.returncode == 0 else (lines[0] if lines else "the compiler failed")


def versions(python: Path) -> dict[str, str]:
    """The versions of what an environment has of the measured packages."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        "def of(n):\n"
        "    try: return m.version(n)\n"
        "    except m.PackageNotFoundError: return None\n"
        f"print(json.dumps({{n: v for n in {SHOWN!r} if (v := of(n))}}))"
    )
    output = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = json.loads(output)
    return found


def environment(**extra: str) -> dict[str, str]:
    """The environment of a peer's process: nothing of a coverage run or of pytest."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}
    return {**kept, **extra}
