"""docs/django.md and the READMEs: their blocks are projects, which migrate and pass their own tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autosell_rmq_django.test import RabbitMQTester
from tests.acceptance.markdown import ROOT, blocks
from tests.acceptance.test_docs import READMES
from tests.django import settings

PAGE = ROOT / "docs" / "django.md"
PAGES = [PAGE, ROOT / "docs" / "django-consuming.md", ROOT / "docs" / "django-producer.md"]

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(settings.KIND != "sqlite", reason="has its own database, and runs once"),
]

SETTINGS = """
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "mysite.urls"
SECRET_KEY = "not a secret"
USE_TZ = True
"""
URLS = """
from django.urls import path
from shop import views

urlpatterns = [
    path("order", views.order), path("price", views.price), path("cancel/<int:number>", views.cancel),
]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files that the page shows, and the few that it leaves out."""
    files = {"mysite/settings.py": SETTINGS, "mysite/urls.py": URLS, "mysite/__init__.py": ""}
    files |= {"shop/__init__.py": "", "shop/migrations/__init__.py": ""}
    for block in blocks(PAGE, "python"):
        found = re.match(r"# ([\w/]+\.py)\n", block.code)
        assert found, f"the block at line {block.line} names no file"
        files[found[1]] = files.get(found[1], "") + block.code
    write(tmp_path, files)
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    for name, code in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code, encoding="utf-8")


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "mysite.settings", "PYTHONPATH": str(folder)}
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_the_project_of_the_page(project: Path) -> None:
    run(project, "django", "makemigrations", "shop")
    assert "no issues" in run(project, "django", "check")
    run(project, "django", "migrate")
    assert "Ran 7 tests" in run(project, "django", "test")
    # Without a configuration around it, so without a warning becoming an error.
    output = run(
        project, "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider", "shop"
    )
    assert "2 passed" in output


def test_the_table_names_what_the_tester_has() -> None:
    public = {name for name in dir(RabbitMQTester) if not name.startswith("_")} | {"failures"}
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("| `rmq.…` |") :].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines()[2:]]

    assert {name for row in rows for name in re.findall(r"`(\w+)", row)} == public


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        path = (page.parent / file) if file else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


README_SETTINGS = """
DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE"}
INSTALLED_APPS += ["shop"]
"""
README_MODELS = """
from django.db import models


class Order(models.Model):
    item = models.CharField(max_length=100)
"""
README_TESTS = """

class ViewTests(RabbitMQTestMixin, TestCase):
    def test_the_views(self):
        self.rmq.answer("prices", 5)
        ordered = self.client.post("/order", {"item": "lamp", "key": "k"}).json()
        assert ordered["data"] == {"number": Order.objects.get().pk}
        assert self.client.get("/price", {"item": "lamp"}).json()["data"] == 5
        with self.captureOnCommitCallbacks(execute=True):
            self.client.get("/cancel/1")
        assert self.rmq.sent[-1].data == {"cancelled": 1}
"""


@pytest.mark.parametrize("readme", READMES, ids=lambda page: page.name)
def test_the_section_of_a_readme(readme: Path, tmp_path: Path) -> None:
    """Its blocks are marked `py`: those marked `python` are one session without Django."""
    shown = {
        block.code.partition("\n")[0].removeprefix("# "): block.code
        for block in blocks(readme, "py")
        if block.heading.startswith("Django")
    }
    assert sorted(shown) == ["settings.py", "shop/rmq.py", "shop/tests.py", "shop/views.py"]
    assert "(docs/django.md)" in readme.read_text(encoding="utf-8")
    files = {
        "mysite/settings.py": SETTINGS + shown.pop("settings.py") + README_SETTINGS,
        "mysite/urls.py": URLS,
        "shop/models.py": README_MODELS,
        **shown,
        "shop/tests.py": shown["shop/tests.py"] + README_TESTS,
    }
    files |= dict.fromkeys(["mysite/__init__.py", "shop/__init__.py", "shop/migrations/__init__.py"], "")
    write(tmp_path, files)

    run(tmp_path, "django", "makemigrations", "shop")
    assert "Ran 2 tests" in run(tmp_path, "django", "test")
