"""The pages agree with the code, with each other, and with the original README."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from autosell_rmq.codec import DeadLetterReason, envelope
from autosell_rmq.message import Message
from tests.acceptance.markdown import ROOT, SEED, blocks

pytestmark = pytest.mark.acceptance

READMES = [ROOT / "README.md", ROOT / "README.ru.md"]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
OURS = [
    *READMES,
    *(
        ROOT / "docs" / f"{page}.md"
        for page in ("architecture", "asyncapi", "glossary", "migration", "security")
    ),
    *DECISIONS,
]


@pytest.mark.parametrize("page", OURS, ids=lambda page: page.name)
def test_links_lead_to_files_of_the_project(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8"))
    files = {target.split("#")[0] for target in targets} - {""}

    assert {file for file in files if not (page.parent / file).exists()} == set()


@pytest.mark.parametrize("page", [*READMES, ROOT / "docs" / "asyncapi.md"], ids=lambda page: page.name)
def test_links_lead_to_headings_of_the_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }

    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_russian_readme_keeps_every_snippet_of_the_seed() -> None:
    shown = [block.code for block in blocks(ROOT / "README.ru.md", "python")]

    assert [b.heading for b in blocks(SEED, "python") if b.code not in shown] == []


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_shown_envelope_has_the_fields_of_a_real_one(page: Path) -> None:
    [shown] = [block.code for block in blocks(page, "json") if "original_body" in block.code]
    real = envelope(
        Message(queue="orders", body=b"{}"),
        DeadLetterReason.MAX_RETRIES_EXCEEDED,
        "no such item: unicorn",
        attempts=4,
        error_type="LookupError",
    )

    assert sorted(json.loads(shown)) == sorted(json.loads(real))
    assert json.loads(shown)["reason"] == json.loads(real)["reason"]


def test_architecture_lists_the_rooms_in_the_order_of_the_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [c for c in project["tool"]["importlinter"]["contracts"] if c["id"] == "rooms"]
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`[\w`, ]+`) \| ", page, re.MULTILINE)

    listed = [set(re.findall(r"`(\w+)`", line)) for line in table]
    assert listed == [set(layer.split(" | ")) for layer in reversed(contract["layers"])]


@pytest.mark.parametrize("record", DECISIONS, ids=lambda record: record.stem)
def test_decision_is_short_and_has_its_three_parts(record: Path) -> None:
    text = record.read_text(encoding="utf-8")

    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert text.startswith(f"# {record.stem[:4]}: ")
    assert len(text.splitlines()) <= 30
    assert f"({record.name})" in (record.parent / "README.md").read_text(encoding="utf-8")
