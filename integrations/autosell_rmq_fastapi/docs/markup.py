"""HTML, escaped unless it is known to be HTML."""

from __future__ import annotations

import re
from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *content: str, **attributes: str | None) -> Markup:
    """Write an element; text is escaped, a `Markup` is not.

    A trailing underscore of an attribute's name is left out (``class_``); an attribute that is None, too.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{joined(*content)}</{name}>")


def joined(*content: str) -> Markup:
    """Write one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in content))


def prose(text: str) -> Markup:
    """Write paragraphs, with `code` between backticks; no other Markdown is known."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip()))
    return joined(*(tag("p", with_code(paragraph)) for paragraph in paragraphs if paragraph))


def with_code(text: str) -> Markup:
    """Write a line, with `code` between backticks."""
    pieces = re.split(r"`{1,2}([^`]+)`{1,2}", text)
    return joined(*(tag("code", piece) if index % 2 else piece for index, piece in enumerate(pieces)))
