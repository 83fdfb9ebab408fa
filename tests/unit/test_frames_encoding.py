"""Publications as frames, against the client library's own reader and writer."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from autosell_rmq.brokers.rabbitmq.frames import MAX_HEADER_BYTES, Outgoing
from autosell_rmq.exceptions import EncodeError
from autosell_rmq.message import Properties, Publication
from tests.support.framed import frames_in
from tests.unit.test_frames_fields import SCALARS, tables

FRAME_MAX = 4096
SHORT = st.text(max_size=60)
TIMES = st.integers(0, 2**32 - 1).map(lambda seconds: dt.datetime.fromtimestamp(seconds, dt.UTC))
PROPERTIES = st.builds(
    Properties,
    content_type=st.none() | SHORT,
    content_encoding=st.none() | SHORT,
    headers=tables(SCALARS),
    persistent=st.booleans(),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | SHORT,
    reply_to=st.none() | SHORT,
    expiration=st.none() | st.integers(0, 10**6),
    message_id=SHORT.filter(bool),
    timestamp=st.none() | TIMES,
    type=st.none() | SHORT,
    user_id=st.none() | SHORT,
    app_id=st.none() | SHORT,
)
PUBLICATIONS = st.builds(
    Publication,
    body=st.binary(max_size=200) | st.sampled_from([b"x" * size for size in (4087, 4088, 4089, 10_000)]),
    routing_key=SHORT,
    exchange=SHORT,
    properties=PROPERTIES,
    mandatory=st.booleans(),
)


def sent(publication: Publication, **options: str) -> list[Any]:
    return frames_in(Outgoing(publication, **options).frames(7, FRAME_MAX))


@given(PUBLICATIONS)
def test_the_client_library_reads_what_was_meant(publication: Publication) -> None:
    method, header, *parts = sent(publication)

    assert isinstance(method, Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory, method.immediate) == (
        publication.exchange,
        publication.routing_key,
        publication.mandatory,
        False,
    )
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(publication.body)
    assert all(isinstance(part, ContentBody) and len(part.value) <= FRAME_MAX - 8 for part in parts)
    assert b"".join(part.value for part in parts) == publication.body
    _same(publication.properties, header.properties)


def _same(ours: Properties, theirs: Basic.Properties) -> None:
    for name in ("content_type", "content_encoding", "priority", "correlation_id", "reply_to"):
        assert getattr(theirs, name) == getattr(ours, name)
    for name in ("message_id", "timestamp", "user_id", "app_id"):
        assert getattr(theirs, name) == getattr(ours, name)
    assert theirs.message_type == ours.type
    assert theirs.delivery_mode == (2 if ours.persistent else 1)
    assert (theirs.headers or {}) == ours.headers
    assert theirs.expiration == (None if ours.expiration is None else str(ours.expiration * 1000))


def test_each_frame_names_its_channel_and_ends() -> None:
    raw = Outgoing(Publication(body=b"x" * 9000, routing_key="q")).frames(0x0102, FRAME_MAX)
    frames = 0
    while raw:
        size = int.from_bytes(raw[3:7]) + 8
        assert raw[1:3] == b"\x01\x02"
        assert raw[size - 1] == 0xCE
        assert size <= FRAME_MAX
        raw = raw[size:]
        frames += 1
    assert frames == 2 + 3


def test_an_id_is_stamped_where_there_is_none() -> None:
    publication = Publication(body=b"", routing_key="q")
    outgoing = Outgoing(publication)
    [_, header] = frames_in(outgoing.frames(1, FRAME_MAX))

    assert header.properties.message_id == outgoing.message_id
    assert outgoing.message_id != Outgoing(publication).message_id


def test_the_reply_address_may_be_another() -> None:
    publication = Publication(body=b"", routing_key="q", properties=Properties(reply_to="mine"))
    assert (
        sent(publication, reply_to="amq.rabbitmq.reply-to")[1].properties.reply_to == "amq.rabbitmq.reply-to"
    )


@pytest.mark.parametrize(
    ("publication", "named"),
    [
        (Publication(body=b"", routing_key="k" * 256), "the routing key"),
        (Publication(body=b"", routing_key="k", exchange="e" * 256), "the exchange"),
        (Publication(body=b"", routing_key="k", properties=Properties(type="ы" * 128)), "type"),
        (Publication(body=b"", routing_key="k", properties=Properties(app_id="\ud800")), "app_id"),
        (Publication(body=b"", routing_key="k", properties=Properties(priority=256)), "priority"),
        (
            Publication(
                body=b"", routing_key="k", properties=Properties(headers={"x": "y" * MAX_HEADER_BYTES})
            ),
            "headers",
        ),
    ],
    ids=["routing key", "exchange", "type", "surrogate", "priority", "headers"],
)
def test_what_amqp_cannot_carry_is_named(publication: Publication, named: str) -> None:
    with pytest.raises(EncodeError, match=named):
        Outgoing(publication)
