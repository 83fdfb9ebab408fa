"""The pytest plugin, as a project uses it: in a pytest of its own; and the mixin without a database."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from django.test import SimpleTestCase

from autosell_rmq_django import producer
from autosell_rmq_django.test import RabbitMQTestMixin

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(60)


def run_pytest(folder: Path, code: str) -> str:
    (folder / "test_project.py").write_text(textwrap.dedent(code))
    (folder / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = tests.django.settings\n")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", folder],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RMQ_TEST_RUN": f"plugin_{os.getpid()}"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_fixture(tmp_path: Path) -> None:
    output = run_pytest(
        tmp_path,
        """
        import pytest
        from autosell_rmq_django import producer
        from tests.django.shop.models import Effect

        def test_a_handler(rmq):
            assert rmq.deliver("shop.sync", {"key": "a"})["success"]
            assert Effect.objects.count() == 1

        def test_its_effects_are_gone(rmq):
            assert Effect.objects.count() == 0
            assert rmq.sent == []

        @pytest.mark.django_db(transaction=True)
        def test_real_commits(rmq):
            assert rmq.deliver("shop.async", {"key": "a"})["success"]
            producer.send_on_commit("mails", 1)
            assert len(rmq.sent) == 1
        """,
    )

    assert "3 passed" in output


class WithoutDatabase(RabbitMQTestMixin, SimpleTestCase):
    """No connection is opened for what needs none."""

    def test_sending(self) -> None:
        producer.send_fire_and_forget("mails", 1)
        self.rmq.answer("prices", 5)

        assert producer.send_message("prices", 1)["data"] == 5
        assert self.rmq.run() == 0
