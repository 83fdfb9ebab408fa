"""The pytest plugin, as a project uses it: in a pytest of its own, found by its entry point."""

import textwrap
from pathlib import Path

import pytest

from tests.fastapi.pytest_runs import run_pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(90)]


def run(folder: Path, code: str, *options: str, passes: bool = True) -> str:
    (folder / "test_project.py").write_text(textwrap.dedent(code), encoding="utf-8")
    return run_pytest(folder, *options, passes=passes)


def test_the_fixture(tmp_path: Path) -> None:
    output = run(
        tmp_path,
        """
        import pytest
        from fastapi import FastAPI
        from fastapi.testclient import TestClient
        from autosell_rmq import RabbitMQ
        from autosell_rmq_fastapi import rmq_lifespan

        rmq = RabbitMQ()
        other = RabbitMQ()
        store, handled = rmq.store, []
        rmq.handler("orders")(handled.append)
        app = FastAPI(lifespan=rmq_lifespan(other, rmq_lifespan(rmq)))

        @pytest.fixture
        def broker(rmq_in_memory):
            return rmq_in_memory(rmq, other)

        @pytest.fixture
        def client(broker):
            with TestClient(app) as client:
                yield client

        @pytest.mark.parametrize("again", [False, True])
        def test_it(client, broker, again):
            assert broker.deliver("orders", {"item": "lamp"}, correlation_id="one")["success"]
            assert len(handled) == 1 + again

        def test_two_brokers(rmq_in_memory):
            assert rmq_in_memory(rmq) is not rmq_in_memory(other)

        def test_it_is_over():
            assert rmq.store is store
        """,
    )

    assert "4 passed" in output


def test_it_can_be_left_out(tmp_path: Path) -> None:
    code = "def test_it(rmq_in_memory): pass"
    output = run(tmp_path, code, "-p", "no:autosell_rmq_fastapi", passes=False)

    assert "fixture 'rmq_in_memory' not found" in output


def test_the_fixture_for_django_is_not_there_without_pytest_django(tmp_path: Path) -> None:
    """Its error would speak of a database that a FastAPI project has never heard of."""
    output = run(tmp_path, "def test_it(rmq): pass", passes=False)

    assert "fixture 'rmq' not found" in output


def test_nothing_is_imported_for_a_project_that_does_not_use_it(tmp_path: Path) -> None:
    """So it costs no time, and needs neither FastAPI nor Django."""
    output = run(
        tmp_path,
        """
        import sys

        def test_it():
            assert {"autosell_rmq_fastapi.testing", "autosell_rmq_django.test.plugin"} <= sys.modules.keys()
            names = {name.partition(".")[0] for name in sys.modules}
            assert names.isdisjoint({"autosell_rmq", "aio_pika", "pydantic", "fastapi", "django"})
        """,
    )

    assert "1 passed" in output
