"""What became of each of many messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autosell_rmq.exceptions import AutosellRmqError, PublishUnknown


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The broker has it stored.

    Attributes:
        index: which of the messages, from 0.
        correlation_id: that it carries.
    """

    index: int
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """It is stored nowhere; `error` says why (unroutable, refused by the broker, no JSON, never sent).

    Attributes:
        index: as of `Confirmed`; so is the correlation id.
    """

    index: int
    correlation_id: str
    error: AutosellRmqError


@dataclass(frozen=True, slots=True)
class Unknown:
    """No confirm came, so it may or may not be stored: send it again under its correlation id.

    Attributes:
        index: as of `Confirmed`; so is the correlation id.
    """

    index: int
    correlation_id: str
    error: PublishUnknown


type SendResult = Confirmed | Refused | Unknown


@dataclass(slots=True)
class SendProgress:
    """How many messages have come to which end so far; one object, which is counted up."""

    confirmed: int = 0
    refused: int = 0
    unknown: int = 0

    def count(self, result: SendResult) -> None:
        """Count one more."""
        match result:
            case Confirmed():
                self.confirmed += 1
            case Refused():
                self.refused += 1
            case Unknown():
                self.unknown += 1


type OnProgress = Callable[[SendProgress], object]
