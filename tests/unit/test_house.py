"""The house keeps its own rules: packaging, layout, lock file, changelog."""

import importlib
import re
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("autosell_rmq", "autosell_rmq_django", "autosell_rmq_fastapi")
MAX_LINES = 300

# The brackets keep these patterns from matching themselves.
RUNS_CODE = re.compile(
    r"\b(c?[pP]ickle|dill|cloudpickle|jsonpickle|shelve|marshal)\b|yaml\.(unsafe_|full_)?load\b|(?<![\w.])(eval|exec)\("
)
LOCAL_PATHS = re.compile(r"(?<![\w.~-])/(?:[w]ork|[r]oot|[o]pt)/|\.\./[s]hared\b")
NOT_OURS = {
    ".git",
    ".idea",
    ".vscode",
    ".venv",
    ".venv-bench",
    ".venv-tools",
    "__pycache__",
    ".hypothesis",
    "build",
    "dist",
    "htmlcov",
}


def files() -> Iterator[Path]:
    """Yield the project's own files."""
    for folder, folders, names in ROOT.walk():
        folders[:] = [name for name in folders if name not in NOT_OURS and not name.endswith("_cache")]
        yield from (folder / name for name in names if name != ".env" and not name.startswith(".coverage"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    [path] = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_package_is_typed(wheel: zipfile.ZipFile, package: str) -> None:
    assert {f"{package}/__init__.py", f"{package}/py.typed"} <= set(wheel.namelist())


def test_wheel_holds_every_module_of_the_core(wheel: zipfile.ZipFile) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "autosell_rmq").rglob("*.py")}

    assert modules <= set(wheel.namelist())


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_complete_and_sorted(package: str) -> None:
    module = importlib.import_module(package)
    exported: list[str] = module.__all__
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "TYPE_CHECKING" and not isinstance(value, ModuleType)
    }

    if "__getattr__" in vars(module):  # the others are imported when they are first asked for
        assert public <= set(exported)
    else:
        assert public == {name for name in exported if not name.startswith("_")}
    assert all(hasattr(module, name) for name in exported)
    assert exported == sorted(set(exported), key=all_order)


def all_order(name: str) -> tuple[int, str]:
    """Order names as ruff's RUF022 does: constants, classes, the rest."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2), name


def test_no_file_outgrows_its_room() -> None:
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for folder in ("autosell_rmq", "integrations")
        for path in (ROOT / folder).rglob("*.py")
    }

    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}


def test_no_room_is_called_utils_or_common() -> None:
    names = {
        path.stem for folder in ("autosell_rmq", "integrations") for path in (ROOT / folder).rglob("*.py")
    }

    assert names.isdisjoint({"common", "helpers", "misc", "util", "utils"})


def test_nothing_is_deserialized_that_could_run_code() -> None:
    """JSON only: what may come in a message, a store or a dead letter is data."""
    found = {
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("autosell_rmq", "integrations")
        for path in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if RUNS_CODE.search(line)
    }

    assert found == set()


def test_integrations_are_kept_from_every_room_but_testing() -> None:
    contracts = {contract["id"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
    rooms = {room.strip() for layer in contracts["rooms"]["layers"] for room in layer.split("|")}

    protected = {f"autosell_rmq.{room}" for room in rooms - {"testing"}}
    assert set(contracts["public-names"]["protected_modules"]) == protected


def test_no_file_names_a_path_of_one_machine() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{number}"
        for path in files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if LOCAL_PATHS.search(line)
    }

    assert found == set()


def test_lock_file_knows_only_public_addresses() -> None:
    packages: list[dict[str, Any]] = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    sources = [package["source"] for package in packages if package["name"] != "autosell-rmq"]
    urls = [
        file["url"]
        for package in packages
        for file in [*package.get("wheels", []), package.get("sdist")]
        if file
    ]

    assert {key for source in sources for key in source} == {"registry"}
    assert all(url.startswith("https://") for url in [*urls, *(source["registry"] for source in sources)])


def test_changelog_has_this_version() -> None:
    version = re.sub(r"\.?(dev|a|b|rc)\d+$", "", PROJECT["project"]["version"])

    assert re.search(rf"^## \[{re.escape(version)}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
