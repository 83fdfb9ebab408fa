"""Projects of a test's own: apps with an ``rmq.py``, in a registry that nobody else sees."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.test import override_settings

import autosell_rmq_django
from autosell_rmq_django import registry
from autosell_rmq_django.registry import Discovery, Registry
from tests.django.settings import INSTALLED_APPS

WITHOUT_SHOP = [name for name in INSTALLED_APPS if name != "tests.django.shop"]

# Takes apps with the code of their rmq.py (None: no such file), and finds their handlers.
type Project = Callable[..., Discovery]


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """``handler``, ``router`` and ``discover`` are this one's; the shop is not installed."""
    own = Registry()
    # First: what is undone is what the package has now, and it takes that from the registry.
    monkeypatch.setattr(autosell_rmq_django, "handler", own.router.handler)
    monkeypatch.setattr(autosell_rmq_django, "router", own.router)
    for name, value in {
        "registry": own,
        "router": own.router,
        "handler": own.router.handler,
        "discover": own.discover,
    }.items():
        monkeypatch.setattr(registry, name, value)
    with override_settings(INSTALLED_APPS=WITHOUT_SHOP):
        yield own


@pytest.fixture
def project(own_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.syspath_prepend(tmp_path)
    stack: list[override_settings] = []
    names: list[str] = []

    def make(**apps: str | None) -> Discovery:
        for name, code in apps.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").touch()
            if code is not None:
                (tmp_path / name / "rmq.py").write_text(textwrap.dedent(code))
        importlib.invalidate_caches()
        names.extend(apps)
        change = override_settings(INSTALLED_APPS=[*WITHOUT_SHOP, *apps])
        change.enable()
        stack.append(change)
        return own_registry.discover()

    yield make
    for change in stack:
        change.disable()
    for module in list(sys.modules):
        if module.partition(".")[0] in names:
            del sys.modules[module]
