"""A framework's injector in small: one marker, and a record of when its values come and go."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autosell_rmq import Injected, Injection, Message


@dataclass(frozen=True)
class Marker:
    dependency: object


@dataclass
class RecordingInjector:
    """Serves each marker's dependency as the value.

    Attributes:
        log: ``open`` and ``close``, or ``undo`` with the name of the error that came to it.
        planned: by handler, the names of its injected parameters.
        on_open: awaited before the values are there.
        on_close: awaited after the handler returned; what it raises is a commit that fails.
        swallows: let no error through.
        messages: what it was called with.
    """

    log: list[str] = field(default_factory=list)
    planned: dict[str, list[str]] = field(default_factory=dict)
    on_open: Callable[[], Any] | None = None
    on_close: Callable[[], Any] | None = None
    swallows: type[BaseException] | None = None
    messages: list[Message] = field(default_factory=list)

    def plan(
        self, name: str, function: Callable[..., object], parameters: Sequence[Injected]
    ) -> Injection | None:
        self.planned[name.rpartition(".")[2]] = [entry.name for entry in parameters]

        @contextlib.asynccontextmanager
        async def injection(message: Message) -> AsyncGenerator[Mapping[str, object]]:
            self.messages.append(message)
            if self.on_open is not None:
                await self.on_open()
            self.log.append("open")
            try:
                yield {p.name: p.marker.dependency for p in parameters if isinstance(p.marker, Marker)}
            except BaseException as error:
                self.log.append(f"undo {type(error).__name__}")
                if self.swallows is None or not isinstance(error, self.swallows):
                    raise
            else:
                if self.on_close is not None:
                    await self.on_close()
                self.log.append("close")

        return injection if parameters else None
