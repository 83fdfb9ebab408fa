"""The command line when something is wrong: one clear line, an exit code, no traceback, no password.

What needs a broker, or shows that the whole process ends well, runs as a process; the rest calls `main`.
"""

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from autosell_rmq.cli import main
from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import Running, running
from tests.acceptance.test_cli import SCRIPT
from tests.support.services import RABBITMQ_URL

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(90)]

SECRET = "hunter2"
HOST = urlsplit(RABBITMQ_URL).netloc.rpartition("@")[2]

type Complaint = Callable[..., str]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that refuses connections for as long as the test has it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def complaint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Complaint]:
    """Run the command line in an empty folder; it has to end with the code and say one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments: str, code: int = 1) -> str:
        monkeypatch.setattr(sys, "argv", ["autosell-rmq", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == code
        assert said.out == ""
        assert SECRET not in said.err
        assert "Traceback" not in said.err
        if code == 1:
            assert said.err.count("\n") == 1
        return said.err

    yield run
    for name in ("shop", "needs_more"):
        sys.modules.pop(name, None)


def the_line(run: Running) -> str:
    """The whole complaint of a process."""
    assert len(run.errors) == 1, run.transcript
    assert run.lines == [], run.transcript
    assert SECRET not in run.error_output
    return run.errors[0]


# --- without a broker ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"http://u:{SECRET}@host/", "starts with http://: expected amqp://, amqps:// or memory://"),
        (f"amqp://u:{SECRET}@host:port/", "cannot be read"),
        (f"amqp://u:{SECRET}@/", "names no host"),
        (f"amqp://u:{SECRET}#1@host/", "# is %23"),
        (f"amqp://u:{SECRET}@host/a/b", "write a slash in its name as %2F"),
        (f"amqp://u:{SECRET}@host/?no_verify_ssl=1", "cannot switch TLS's verification off"),
        (" ", "is empty"),
    ],
)
def test_bad_url(url: str, words: str, complaint: Complaint) -> None:
    said = complaint("send", "orders", "{}", "--url", url)

    assert said.startswith("error: ConfigError: the ")
    assert words in said


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module:rmq", "cannot import no_such_module"),
        ("shop", "expected MODULE:APP, such as shop.messaging:rmq"),
        ("shop:", "expected MODULE:APP, such as shop.messaging:rmq"),
        ("shop:missing", "module shop has no 'missing'"),
        ("shop:number", "is a int, expected a RabbitMQ object"),
        ("shop:empty", "there is nothing to consume: decorate a function with @rmq.handler(queue)"),
        ("shop:injected", "handler shop.on_order: nothing serves its parameter 'db', which is a Depends(…)"),
        ("needs_more:rmq", "cannot import needs_more: No module named 'not_installed'"),
    ],
)
def test_target_that_cannot_be_run(target: str, words: str, complaint: Complaint, tmp_path: Path) -> None:
    shop = "from autosell_rmq import RabbitMQ\nnumber = 1\nempty = RabbitMQ('memory://')\n"
    shop += "class Depends:\n    dependency = None\ninjected = RabbitMQ('memory://')\n"
    shop += "@injected.handler('orders')\ndef on_order(order, db=Depends()): ...\n"
    (tmp_path / "shop.py").write_text(shop)
    (tmp_path / "needs_more.py").write_text("import not_installed\n")

    said = complaint("run", target)

    assert said.startswith("error: ConfigError: ")
    assert words in said


@pytest.mark.parametrize("payload", ["{", "", "NaN", "{'n': 1}", '{"n": 1} x', "\udcff"])
def test_payload_that_is_no_json(payload: str, complaint: Complaint) -> None:
    said = complaint("send", "orders", payload, "--url", "memory://")

    assert said.startswith("error: ConfigError: the payload is no JSON: ")


def test_wrong_environment(complaint: Complaint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.py").write_text("from autosell_rmq import RabbitMQ\nrmq = RabbitMQ('memory://')\n")
    monkeypatch.setenv("MAX_RETRIES", "many")

    said = complaint("run", "shop:rmq")

    assert "environment variable MAX_RETRIES='many': expected a whole number >= 0" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "shop:rmq", "--log-level", "loud"], "--log-level 'loud': expected debug, info, warning"),
        (
            ["send", "orders", "{}", "--timeout", "-1", "--url", "memory://"],
            "expected a number of seconds > 0",
        ),
        (["send", "", "{}", "--url", "memory://"], "expected a non-empty string"),
        (["send", "no-such-queue", "{}", "--url", "memory://"], "'no-such-queue'"),
    ],
)
def test_wrong_value(arguments: list[str], words: str, complaint: Complaint) -> None:
    assert words in complaint(*arguments)


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["send"], ["run"], ["send", "q", "{}", "--timeout", "x"]]
)
def test_wrong_usage_is_told_with_code_2(arguments: list[str], complaint: Complaint) -> None:
    assert complaint(*arguments, code=2).startswith("Usage: ")


# --- whole processes -----------------------------------------------------------------------------------


@pytest.mark.rabbitmq
async def test_wrong_password() -> None:
    async with running(*SCRIPT, "send", "orders", "{}", "--url", f"amqp://guest:{SECRET}@{HOST}/") as run:
        assert await run.exit_code() == 1

    assert the_line(run).startswith("error: AccessRefused: RabbitMQ refused the login of user 'guest'")


@pytest.mark.rabbitmq
async def test_no_such_vhost() -> None:
    url = urlsplit(RABBITMQ_URL)._replace(path="/no-such-vhost").geturl()
    async with running(*SCRIPT, "send", "orders", "{}", "--url", url) as run:
        assert await run.exit_code() == 1

    assert the_line(run).startswith("error: AccessRefused: RabbitMQ refused vhost 'no-such-vhost'")


async def test_no_broker_for_send(silent_port: int) -> None:
    url = f"amqp://guest:{SECRET}@127.0.0.1:{silent_port}/"
    async with running(*SCRIPT, "send", "orders", "{}", "--timeout", "0.5", "--url", url) as run:
        assert await run.exit_code() == 1

    assert the_line(run).startswith(
        "error: BrokerUnavailable: cannot connect to RabbitMQ at amqp://guest:***@"
    )


async def test_no_broker_for_run(silent_port: int, tmp_path: Path) -> None:
    url = f"amqp://guest:{SECRET}@127.0.0.1:{silent_port}/"
    code = f"from autosell_rmq import RabbitMQ\nrmq = RabbitMQ({url!r}, startup_timeout=0.5)\n"
    (tmp_path / "shop.py").write_text(code)
    async with running(*SCRIPT, "run", "shop:rmq", cwd=tmp_path) as run:
        assert await run.exit_code() == 1

    assert the_line(run).startswith(
        "error: BrokerUnavailable: cannot connect to RabbitMQ at amqp://guest:***@"
    )


@pytest.mark.rabbitmq
@pytest.mark.parametrize("options", [[], ["--no-wait"]], ids=["wait", "no-wait"])
async def test_no_such_queue(options: list[str], rabbit: RabbitPlace) -> None:
    queue = rabbit.queue("missing")
    async with running(*SCRIPT, "send", queue, "{}", "--url", rabbit.url, *options) as run:
        assert await run.exit_code() == 1

    assert the_line(run) == f"error: PublishUnroutable: there is no queue '{queue}'"


@pytest.mark.rabbitmq
async def test_no_reply_in_time(rabbit: RabbitPlace) -> None:
    queue = await rabbit.declared("silent")
    async with running(*SCRIPT, "send", queue, "{}", "--timeout", "0.5", "--url", rabbit.url) as run:
        assert await run.exit_code() == 1

    assert the_line(run).startswith(f"error: ReplyTimeout: no reply from queue '{queue}' within 0.5 s")


@pytest.mark.parametrize(
    "command", [SCRIPT, (sys.executable, "-m", "autosell_rmq")], ids=["script", "module"]
)
async def test_missing_module_ends_the_process_with_one_line(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    async with running(*command, "run", "no_such_module:rmq", cwd=tmp_path) as run:
        assert await run.exit_code() == 1

    assert "cannot import no_such_module: No module named 'no_such_module'" in the_line(run)
