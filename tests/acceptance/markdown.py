"""The code blocks of a Markdown page, word for word."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEED = Path(__file__).with_name("seed.ru.md")

_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_HIDDEN = re.compile(r"^<!-- hidden:\n(?P<code>.*?)^-->$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block, or what a ``<!-- hidden:`` comment keeps from readers (language ``hidden``)."""

    language: str
    code: str
    line: int
    heading: str

    @property
    def filename(self) -> str | None:
        """``shop.py``, where the block's first line is ``# shop.py``."""
        found = re.match(r"# ([\w-]+\.py)\n", self.code)
        return found.group(1) if found else None


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks in these languages, in order."""
    text = page.read_text(encoding="utf-8")
    found = [
        Block(
            language=match.groupdict().get("language") or "hidden",
            code=match.group("code"),
            line=text.count("\n", 0, match.start()) + 1,
            heading=_heading_before(text, match.start()),
        )
        for pattern in (_BLOCK, _HIDDEN)
        for match in pattern.finditer(text)
    ]
    return sorted((block for block in found if block.language in languages), key=lambda block: block.line)


def seed_snippet(containing: str) -> str:
    """The one Python block of the seed's README that contains these words."""
    [code] = [block.code for block in blocks(SEED, "python") if containing in block.code]
    return code


def rewritten(code: str, names: Mapping[str, str]) -> str:
    """The same code with other names; each of the old ones has to be there."""
    missing = [old for old in names if old not in code]
    assert not missing, f"{missing} are not in the snippet any more"
    return re.sub(
        "|".join(re.escape(old) for old in sorted(names, key=len, reverse=True)),
        lambda match: names[match.group()],
        code,
    )


def _heading_before(text: str, position: int) -> str:
    # A `#` inside of an earlier code block is no heading.
    plain = _BLOCK.sub(lambda match: "\n" * match.group().count("\n"), text[:position])
    headings = _HEADING.findall(plain)
    return headings[-1] if headings else ""
