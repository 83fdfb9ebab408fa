"""What a message carries, as text to look at: JSON indented, other text as it is, bytes as a hex dump.

Anybody may have written it, so nothing of it goes into a page unescaped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

_WHOLE = 256 * 1024  # bytes; of more only the beginning is shown
_BEGINNING = 4 * 1024  # bytes
_DUMPED = 512  # bytes
_ROW = 16  # bytes in a line of a hex dump
_KINDS = {"json": _("JSON"), "text": _("text"), "binary": _("binary")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A body as text.

    Attributes:
        size: of the whole body, in bytes.
        shown: how many of them `text` is made of.
    """

    kind: Literal["json", "text", "binary"]
    text: str
    size: int
    shown: int


def preview(body: bytes) -> Preview:
    """The body for a reader; never raises, whatever is in it."""
    size = len(body)
    if size <= _WHOLE and (indented := _indented(body)) is not None:
        return Preview(kind="json", text=visible(indented), size=size, shown=size)
    beginning = body if size <= _WHOLE else body[:_BEGINNING]
    if (text := _text(beginning, cut=size > len(beginning))) is not None:
        return Preview(kind="text", text=visible(text), size=size, shown=len(beginning))
    return Preview(kind="binary", text=_hex_dump(body[:_DUMPED]), size=size, shown=min(size, _DUMPED))


def body(data: bytes | memoryview | None) -> str:
    """HTML that shows a body, its kind and its size; nothing where there is none."""
    if data is None:
        return ""
    found = preview(bytes(data))
    cut = found.shown < found.size
    return format_html(
        '<div class="autosell-rmq-body"><small>{kind}, {size}{cut}</small><pre>{text}</pre></div>',
        kind=_KINDS[found.kind],
        size=filesizeformat(found.size),
        cut=_(", the beginning:") if cut else "",
        text=found.text,
    )


def visible(text: str) -> str:
    """The text with an escape for each character that cannot be seen, or that turns others around.

    Lone surrogates are among them, which no page could carry.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def shortened(text: str, most: int) -> str:
    """At most so many characters, on one line."""
    line = visible(text[: most + 1].replace("\n", " ").replace("\t", " "))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _indented(body: bytes) -> str | None:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None


def _text(body: bytes, *, cut: bool) -> str | None:
    # A cut may have gone through a character of up to four bytes.
    for end in range(len(body), max(len(body) - 4, -1) if cut else len(body) - 1, -1):
        try:
            text = body[:end].decode()
        except UnicodeDecodeError:
            continue
        return None if any(c < " " and c not in "\n\r\t" for c in text) else text
    return None


def _hex_dump(body: bytes) -> str:
    lines = []
    for offset in range(0, len(body), _ROW):
        row = body[offset : offset + _ROW]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{offset:04x}  {row.hex(' '):<{3 * _ROW - 1}}  {letters}")
    return "\n".join(lines)
