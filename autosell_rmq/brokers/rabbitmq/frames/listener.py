"""What a channel hears of the frames that we read ourselves."""

from __future__ import annotations

from typing import Protocol

from autosell_rmq.brokers.rabbitmq.frames.content import Content


class ChannelListener(Protocol):
    """One for each of our channels. It is called while the data is read: it must not block or raise."""

    def on_delivered(self, content: Content) -> None:
        """A message for the channel's consumer (basic.deliver)."""
        ...

    def on_returned(self, content: Content) -> None:
        """A mandatory message that no queue takes (basic.return); its confirm is still to come."""
        ...

    def on_confirmed(self, tag: int, *, multiple: bool, refused: bool) -> None:
        """Publish number `tag`, or all up to it, is stored (basic.ack) or refused (basic.nack)."""
        ...

    def on_closing(self) -> None:
        """RabbitMQ closes the channel: one more frame on it would cost the whole connection."""
        ...
