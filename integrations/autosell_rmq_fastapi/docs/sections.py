"""Queues, events and dead letters as sections of the page."""

from __future__ import annotations

import json
from collections.abc import Sequence

from autosell_rmq_fastapi.docs.constraints import as_json
from autosell_rmq_fastapi.docs.examples import NoExample, example
from autosell_rmq_fastapi.docs.facts import handling
from autosell_rmq_fastapi.docs.markup import Markup, joined, prose, tag, with_code
from autosell_rmq_fastapi.docs.reading import Document, Json, Operation
from autosell_rmq_fastapi.docs.tables import anchor, shown, table, type_of


def queue_section(document: Document, operation: Operation) -> Markup:
    """A queue: what its handler does, takes and answers, and how it treats a message."""
    kind = "request and reply" if operation.replies else "one way"
    return _card(
        f"queue-{operation.key}",
        operation.address,
        kind,
        _words(operation),
        _sources(document.bindings(operation.address)),
        _payload("Payload", document, operation.message["payload"]),
        _reply(document, operation.replies),
        _fold("How messages are handled", handling(operation)),
    )


def event_section(document: Document, operation: Operation) -> Markup:
    """An event that the app publishes."""
    return _card(
        f"event-{operation.key}",
        operation.address or operation.exchange["name"],
        "event",
        _words(operation),
        tag("p", "Published to ", _exchange(operation.exchange), class_="sources"),
        _payload("Payload", document, operation.message["payload"]),
    )


def dead_letters(document: Document, operations: Sequence[Operation]) -> Markup:
    """Which queue's dead letters go where, and what a dead letter looks like."""
    rows = [
        tag(
            "tr",
            tag("th", tag("code", it.address), scope="row"),
            tag("td", "from ", tag("code", it.extension["dead_letters_of"])),
        )
        for it in operations
    ]
    message = operations[0].message
    return tag(
        "article",
        tag("table", tag("tbody", *rows), class_="fields"),
        _fold("A dead letter", table(document, message["payload"]), prose(message["description"])),
        class_="card",
        id="dead-letters",
    )


def schema_section(document: Document, name: str) -> Markup:
    """A model, or another type that has a name."""
    schema = document.schemas[name]
    kind = "" if "properties" in schema else type_of(schema)
    about = joined() if kind else prose(schema.get("description", ""))
    return _card(anchor("schema", name), shown(name), kind, about, table(document, schema))


def _card(key: str, name: str, kind: str, *content: Markup) -> Markup:
    title = tag("h3", tag("a", tag("code", name), href=f"#{key}"))
    heading = tag("header", title, tag("span", kind, class_="kind") if kind else joined())
    return tag("article", heading, *content, id=key, class_="card")


def _words(operation: Operation) -> Markup:
    summary = tag("p", with_code(operation.summary), class_="lead") if operation.summary else joined()
    return joined(summary, prose(operation.description))


def _sources(bindings: Sequence[Operation]) -> Markup:
    if not bindings:
        return joined()
    items = [tag("li", _selected(it), " of ", _exchange(it.exchange)) for it in bindings]
    return tag("div", tag("p", "Events that come here"), tag("ul", *items), class_="sources")


def _selected(binding: Operation) -> Markup:
    match binding.exchange["type"]:
        case "fanout":
            return joined("everything")
        case "headers":
            return joined(
                "what has the headers ", tag("code", as_json(binding.extension.get("arguments", {})))
            )
        case _:
            return tag("code", binding.address or '""')


def _exchange(exchange: Json) -> Markup:
    return joined("the ", exchange["type"], " exchange ", tag("code", exchange["name"]))


def _reply(document: Document, replies: Sequence[Json]) -> Markup:
    if not replies:
        return joined()
    success, error = replies
    payload = success["payload"]
    otherwise = tag("p", "After the last attempt, an ", type_of(error["payload"]), ".", class_="or")
    return _payload("Reply", document, payload["properties"]["data"], otherwise, around=payload)


def _payload(
    title: str, document: Document, schema: Json, *more: Markup, around: Json | None = None
) -> Markup:
    """A table of the fields beside an example; `around` is the envelope that the example shows too."""
    name = type_of(schema)
    described = document.resolve(schema).get("description", "") if "$ref" in schema else ""
    heading = tag("h4", title, " ", tag("span", name, class_="type"))
    left = tag("div", heading, prose(described), table(document, schema), *more)
    return tag("div", left, _example(document, around or schema), class_="pair")


def _example(document: Document, schema: Json) -> Markup:
    try:
        value = example(document, schema)
    except NoExample:
        return joined()
    if value in ({}, None):  # says nothing
        return joined()
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # Scrolled by the keyboard too, hence the tabindex.
    return tag("figure", tag("figcaption", "Example"), tag("pre", tag("code", text), tabindex="0"))


def _fold(title: str, *content: Markup) -> Markup:
    return tag("details", tag("summary", title), *content)
