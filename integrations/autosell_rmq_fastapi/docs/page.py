"""The document as one page of HTML: no script, nothing fetched, its style within it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from autosell_rmq_fastapi.docs.markup import Markup, joined, prose, tag
from autosell_rmq_fastapi.docs.reading import Document
from autosell_rmq_fastapi.docs.sections import dead_letters, event_section, queue_section, schema_section
from autosell_rmq_fastapi.docs.tables import anchor, shown

_STYLE = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# Were something of a docstring ever taken for HTML, it would still run nothing and fetch nothing.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:;"
    " base-uri 'none'; form-action 'none'"
)
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='4' fill='%230d7363'/%3E"
    "%3Cpath d='M4 5.5h8M4 8h8M4 10.5h5' stroke='white' stroke-width='1.5' stroke-linecap='round'/%3E"
    "%3C/svg%3E"
)


def page(document: Mapping[str, Any]) -> str:
    """Write the page of an AsyncAPI document that `asyncapi_document` made."""
    read = Document(document)
    head = tag(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        Markup(f'<link rel="icon" href="{_ICON}">'),
        tag("title", f"{read.info['title']} · messages"),
        tag("style", Markup(_STYLE)),
    )
    main = tag("main", _header(read), *_sections(read), id="content", tabindex="-1")
    skip = tag("a", "Skip to the content", href="#content", class_="skip")
    body = tag("body", skip, tag("div", _navigation(read), main, class_="layout"))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}"


def _header(document: Document) -> Markup:
    info = document.info
    return tag(
        "header",
        tag("h1", info["title"], " ", tag("span", info["version"], class_="version")),
        prose(info.get("description", "")),
        tag("dl", *(_server(server) for server in document.servers.values()), class_="servers"),
        tag(
            "p",
            "AsyncAPI 3.0: ",
            tag("a", "JSON", href="asyncapi.json"),
            " · ",
            tag("a", "YAML", href="asyncapi.yaml"),
            class_="links",
        ),
        class_="top",
    )


def _server(server: Mapping[str, str]) -> Markup:
    path = server.get("pathname", "/")
    address = f"{server['protocol']}://{server['host']}{'' if path == '/' else path}"
    return joined(tag("dt", "Broker"), tag("dd", tag("code", address)))


def _navigation(document: Document) -> Markup:
    groups = (
        ("Queues", [(f"queue-{it.key}", it.address) for it in document.queues]),
        ("Events", [(f"event-{it.key}", it.address or it.exchange["name"]) for it in document.published]),
        ("Dead letters", [("dead-letters", "Where they go")] if document.dead_letters else []),
        ("Schemas", [(anchor("schema", name), shown(name)) for name in document.schemas]),
    )
    return tag(
        "nav",
        *(_group(title, links) for title, links in groups if links),
        aria_label="On this page",
    )


def _group(title: str, links: Sequence[tuple[str, str]]) -> Markup:
    items = (tag("li", tag("a", text, href=f"#{target}")) for target, text in links)
    return tag("section", tag("h2", title), tag("ul", *items))


def _sections(document: Document) -> list[Markup]:
    queues = [queue_section(document, it) for it in document.queues]
    events = [event_section(document, it) for it in document.published]
    letters = [dead_letters(document, document.dead_letters)] if document.dead_letters else []
    schemas = [schema_section(document, name) for name in document.schemas]
    return [
        _section("Queues", "What this application takes, and what it answers.", queues),
        _section("Events", "What this application publishes.", events),
        _section(
            "Dead letters", "Where a message goes that was given up, whole and with its reason.", letters
        ),
        _section("Schemas", "Every type that is named above.", schemas),
    ]


def _section(title: str, text: str, content: Sequence[Markup]) -> Markup:
    if not content:
        return joined()
    return tag("section", tag("h2", title), tag("p", text, class_="intro"), *content)
