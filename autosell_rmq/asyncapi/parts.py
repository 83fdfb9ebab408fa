"""What a document is put together from, under ids that stay unique whatever the names of queues are."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

type Json = dict[str, Any]

EXTENSION = "x-autosell-rmq"  # for what AsyncAPI has no field


class Ids:
    """Ids made from names: the same thing gets the same id, another thing another one.

    Queues and routing keys may have characters that a reference would have to escape; ids have none.
    """

    def __init__(self) -> None:
        self._given: dict[Hashable, str] = {}

    def of(self, thing: Hashable, name: str) -> str:
        """The id of a thing, which is like `name`."""
        if thing not in self._given:
            plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
            taken = set(self._given.values())
            wanted, count = plain, 1
            while wanted in taken:
                count += 1
                wanted = f"{plain}_{count}"
            self._given[thing] = wanted
        return self._given[thing]


@dataclass(slots=True)
class Parts:
    """Channels, operations and messages, as far as they are known."""

    channels: dict[str, Json] = field(default_factory=dict)
    operations: dict[str, Json] = field(default_factory=dict)
    messages: dict[str, Json] = field(default_factory=dict)
    _channel_ids: Ids = field(default_factory=Ids)
    _operation_ids: Ids = field(default_factory=Ids)
    _message_ids: Ids = field(default_factory=Ids)

    def channel(self, thing: Hashable, name: str, channel: Json) -> str:
        """Add a channel, or add to the one that is there; returns its id."""
        key = self._channel_ids.of(thing, name)
        known = self.channels.get(key, {})
        self.channels[key] = {**known, **channel, "messages": known.get("messages", {})}
        return key

    def message(self, channel: str, thing: Hashable, name: str, message: Json) -> Json:
        """Add a message to a channel; returns the reference by which operations name it."""
        key = self._message_ids.of(thing, name)
        self.messages[key] = message
        self.channels[channel]["messages"][key] = {"$ref": f"#/components/messages/{key}"}
        return {"$ref": f"#/channels/{channel}/messages/{key}"}

    def operation(self, action: str, channel: str, name: str, messages: list[Json], **more: object) -> None:
        """Add an operation."""
        key = self._operation_ids.of(len(self.operations), name)
        self.operations[key] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": messages,
            **more,
        }
