"""AMQP frames as bytes: splitting what comes in, reading contents tolerantly, writing acks and messages."""

from autosell_rmq.brokers.rabbitmq.frames.acks import Acks
from autosell_rmq.brokers.rabbitmq.frames.content import PROPERTIES_AT, Content, decode_properties
from autosell_rmq.brokers.rabbitmq.frames.encoding import MAX_HEADER_BYTES, Outgoing
from autosell_rmq.brokers.rabbitmq.frames.fields import encode_table, text
from autosell_rmq.brokers.rabbitmq.frames.listener import ChannelListener
from autosell_rmq.brokers.rabbitmq.frames.protocol import FrameProtocol
from autosell_rmq.brokers.rabbitmq.frames.transport import (
    FramedConnection,
    frames_of,
    listen,
    read_by,
    unheard,
)
from autosell_rmq.brokers.rabbitmq.frames.writer import FrameWriter

__all__ = [
    "MAX_HEADER_BYTES",
    "PROPERTIES_AT",
    "Acks",
    "ChannelListener",
    "Content",
    "FrameProtocol",
    "FrameWriter",
    "FramedConnection",
    "Outgoing",
    "decode_properties",
    "encode_table",
    "frames_of",
    "listen",
    "read_by",
    "text",
    "unheard",
]
