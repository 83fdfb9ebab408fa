"""A RabbitMQ node of a test's own on loopback, to be killed, stopped and alarmed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.names import unique

_BOOT = 90.0  # seconds; it takes five to seven on an idle machine
_CONFIG = """\
loopback_users.guest = true
cluster_partition_handling = pause_minority
disk_free_limit.absolute = 50MB
"""


class PrivateBroker:
    """A node with its own name, port and files. Everything blocks: await it by `asyncio.to_thread`."""

    def __init__(self) -> None:
        self.name = f"{unique('node').replace('.', '-')}@localhost"
        self.port = _free_port()
        self._distribution = _free_port()
        # Not in pytest's own folder: RabbitMQ may run as a user that cannot look into it.
        self._folder = Path(tempfile.mkdtemp(prefix="rmq-node-"))
        for part in ("mnesia", "log"):
            (self._folder / part).mkdir()
        (self._folder / "rabbitmq.conf").write_text(_CONFIG)
        (self._folder / "enabled_plugins").write_text("[].")
        self._folder.chmod(0o755)
        self._owned()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Boot it, and return when it serves."""
        self._run("rabbitmq-server", "-detached")
        give_up = time.monotonic() + _BOOT
        while not self._listens():
            if time.monotonic() > give_up:
                raise TimeoutError(f"the node {self.name} has not come up within {_BOOT:g} s")
            time.sleep(0.1)
        self.ctl("await_startup", "--timeout", "60")

    def kill(self) -> None:
        """SIGKILL it: nothing is flushed, and nobody is told."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.kill(int((self._folder / "pid").read_text()), signal.SIGKILL)

    def _kill_all(self) -> None:
        """A node that hangs in its boot, too: it has no pid file yet, but an environment that names it.

        epmd may be its child and has that environment; all nodes of the machine use it, so it stays.
        """
        mine = f"RABBITMQ_NODENAME={self.name}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ours = mine in (process / "environ").read_bytes().split(b"\0")
                if ours and b"epmd" not in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl``; returns what it prints."""
        return self._run("rabbitmqctl", "-q", "-n", self.name, *arguments)

    def remove(self) -> None:
        """Kill it and delete its files."""
        self.kill()
        self._kill_all()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            env=os.environ | self._environment,
            capture_output=True,
            text=True,
            timeout=_BOOT,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _owned(self) -> None:
        """Started by root, the server runs as its own user."""
        if os.geteuid() == 0:
            for path in (self._folder, *self._folder.rglob("*")):
                shutil.chown(path, "rabbitmq", "rabbitmq")


@contextlib.contextmanager
def private_broker() -> Generator[PrivateBroker]:
    """A running node, gone at the end. Without RabbitMQ installed the test is skipped, or fails in CI."""
    if shutil.which("rabbitmq-server") is None:
        missing = "rabbitmq-server is not installed: a node of the test's own cannot be started"
        if os.environ.get("AUTOSELL_RMQ_REQUIRE_SERVICES") == "1":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    broker = PrivateBroker()
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()


def _free_port() -> int:
    """A free one below those of outgoing connections, which might take it while the node is down."""
    while True:
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port := random.randrange(12_000, 32_000)))
            return port
