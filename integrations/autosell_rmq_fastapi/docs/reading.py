"""An AsyncAPI document, as the page reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

type Json = dict[str, Any]

EXTENSION = "x-autosell-rmq"
SCHEMAS = "#/components/schemas/"


class Document:
    """Follows the references of a document and sorts its operations."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.info: Json = document["info"]
        self.servers: dict[str, Json] = document["servers"]
        self.schemas: dict[str, Json] = document["components"]["schemas"]

    def resolve(self, node: Json) -> Json:
        """What a reference leads to, or the node itself."""
        while isinstance(node.get("$ref"), str):
            found: Any = self._document
            for step in node["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            node = found
        return node

    @property
    def queues(self) -> list[Operation]:
        """What handlers receive from their queues."""
        return [it for it in self._operations("receive") if it.is_queue]

    @property
    def published(self) -> list[Operation]:
        """The events that the app publishes."""
        return [it for it in self._operations("send") if not it.is_queue]

    @property
    def dead_letters(self) -> list[Operation]:
        """The dead letters that the app writes."""
        return [it for it in self._operations("send") if it.is_queue]

    def bindings(self, queue: str) -> list[Operation]:
        """The events that come to a queue."""
        operations = self._operations("receive")
        return [it for it in operations if not it.is_queue and it.extension["queue"] == queue]

    def _operations(self, action: str) -> Iterator[Operation]:
        for key, operation in self._document["operations"].items():
            if operation["action"] == action:
                yield Operation(self, key, operation)


class Operation:
    """One operation, with what it refers to."""

    def __init__(self, document: Document, key: str, operation: Json) -> None:
        self.key = key
        self.channel = document.resolve(operation["channel"])
        self.summary: str = operation.get("summary", "")
        self.description: str = operation.get("description", "")
        self.extension: Json = operation.get(EXTENSION, {})
        self.message = document.resolve(operation["messages"][0])
        # The one with the result, and the one with the error; none where nobody waits for them.
        self.replies = [document.resolve(it) for it in operation.get("reply", {}).get("messages", ())]

    @property
    def address(self) -> str:
        """The name of the queue, or the routing key."""
        return self.channel["address"] or ""

    @property
    def is_queue(self) -> bool:
        """Whether it is about a queue; else it is about events of an exchange."""
        return bool(self.channel["bindings"]["amqp"]["is"] == "queue")

    @property
    def exchange(self) -> Json:
        """The exchange of events."""
        found: Json = self.channel["bindings"]["amqp"]["exchange"]
        return found
