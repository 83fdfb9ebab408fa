"""Splitting what comes over a connection: at every byte, with frames of every kind, and with garbage."""

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection, Queue
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from autosell_rmq.brokers.rabbitmq.frames import Content, FrameProtocol
from autosell_rmq.brokers.rabbitmq.frames.protocol import BrokenFrame

OURS, OTHERS = 3, 4

type Taken = tuple[object, ...]


class Reading:
    """A protocol that listens on one channel, and what comes out of it on either side."""

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(limit=2**30, loop=self.loop)
        self.protocol = FrameProtocol(self.reader, self.loop)
        self.taken: list[Taken] = []
        self.closing = False
        self.protocol.listen(OURS, self)

    def on_delivered(self, content: Content) -> None:
        self.taken.append(
            (content.tag, content.redelivered, content.exchange, content.routing_key, content.body)
        )

    def on_returned(self, content: Content) -> None:
        self.taken.append(("returned", content.exchange, content.routing_key, content.body))

    def on_confirmed(self, tag: int, *, multiple: bool, refused: bool) -> None:
        self.taken.append((tag, multiple, refused))

    def on_closing(self) -> None:
        self.closing = True

    def feed(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.protocol.data_received(chunk)

    @property
    def passed_on(self) -> bytes:
        return bytes(self.reader._buffer)  # type: ignore[attr-defined]


@pytest.fixture(scope="module", autouse=True)
def _loop() -> Iterator[None]:
    """A loop that nothing runs on: reading needs its clock and its futures."""
    Reading.loop = asyncio.new_event_loop()
    yield
    Reading.loop.close()


def delivery(tag: int, body: bytes, *, channel: int = OURS, part: int = 5, key: str = "key") -> bytes:
    method = Basic.Deliver(
        consumer_tag="ct", delivery_tag=tag, redelivered=tag % 2 == 0, exchange="ex", routing_key=key
    )
    frames: list[Any] = [method, ContentHeader(0, len(body), Basic.Properties(message_id=str(tag)))]
    frames += [ContentBody(body[at : at + part]) for at in range(0, len(body), part)]
    return b"".join(frame.marshal(each, channel) for each in frames)


def taken(tag: int, body: bytes) -> Taken:
    return tag, tag % 2 == 0, b"ex", b"key", body


METHODS: list[bytes] = [
    frame.marshal(Heartbeat(), 0),
    frame.marshal(Connection.Blocked("low on memory"), 0),
    frame.marshal(Connection.Unblocked(), 0),
    frame.marshal(Basic.ConsumeOk("ct"), OURS),
    frame.marshal(Basic.Ack(3, True), OTHERS),
    frame.marshal(Basic.RecoverOk(), OURS),
    frame.marshal(Basic.CancelOk("ct"), OURS),
    frame.marshal(Channel.Close(406, "PRECONDITION_FAILED", 60, 80), OURS),
    frame.marshal(Queue.DeclareOk("q", 1, 2), OTHERS),
    # A message that was asked for: its content belongs to the client library, on our channel too.
    frame.marshal(Basic.GetOk(1, False, "ex", "key", 0), OURS)
    + frame.marshal(ContentHeader(0, 4, Basic.Properties()), OURS)
    + frame.marshal(ContentBody(b"got!"), OURS),
    delivery(9, b"not ours", channel=OTHERS),
]


def returned(body: bytes) -> tuple[bytes, Taken]:
    frames: list[Any] = [Basic.Return(312, "NO_ROUTE", "ex", "key")]
    frames += [ContentHeader(0, len(body), Basic.Properties()), *([ContentBody(body)] if body else [])]
    return b"".join(frame.marshal(each, OURS) for each in frames), ("returned", b"ex", b"key", body)


def confirmed(tag: int, multiple: bool, refused: bool) -> tuple[bytes, Taken]:
    method = Basic.Nack(tag, multiple, requeue=False) if refused else Basic.Ack(tag, multiple)
    return frame.marshal(method, OURS), (tag, multiple, refused)


PIECES = st.one_of(
    st.sampled_from(METHODS).map(lambda raw: (raw, None)),
    st.builds(returned, st.binary(max_size=30)),
    st.builds(confirmed, st.integers(1, 2**40), st.booleans(), st.booleans()),
    st.tuples(st.integers(1, 2**40), st.binary(max_size=30)).map(
        lambda made: (delivery(*made), taken(*made)),
    ),
)


@given(st.lists(PIECES, max_size=6))
@settings(max_examples=60)
def test_a_stream_is_split_alike_wherever_it_is_cut(pieces: list[tuple[bytes, Taken | None]]) -> None:
    stream = b"".join(raw for raw, _ in pieces)
    ours = [each for _, each in pieces if each is not None]
    others = b"".join(raw for raw, each in pieces if each is None)

    for cut in range(len(stream) + 1):
        reading = Reading()
        reading.feed(stream[:cut], stream[cut:])
        assert (reading.taken, reading.passed_on) == (ours, others)


@given(st.lists(PIECES, max_size=10))
def test_a_stream_may_come_byte_by_byte(pieces: list[tuple[bytes, Taken | None]]) -> None:
    reading = Reading()
    for raw, _ in pieces:
        reading.feed(*(raw[at : at + 1] for at in range(len(raw))))

    assert reading.taken == [each for _, each in pieces if each is not None]
    assert reading.passed_on == b"".join(raw for raw, each in pieces if each is None)


def test_a_body_of_many_frames_is_put_together() -> None:
    body = random.Random(1).randbytes(1_000_000)

    reading = Reading()
    reading.feed(delivery(1, body, part=100_000))

    assert reading.taken == [taken(1, body)]


def test_channels_may_take_turns() -> None:
    one, two = delivery(1, b"one", part=2), delivery(2, b"two", channel=5, part=2)
    reading = Reading()
    reading.protocol.listen(5, reading)
    for first, second in zip(_frames(one), _frames(two), strict=True):
        reading.feed(first + second)

    assert reading.taken == [taken(1, b"one"), taken(2, b"two")]


def test_a_channel_that_was_forgotten_is_the_client_library_s() -> None:
    reading = Reading()
    reading.protocol.forget(OURS, reading)
    reading.feed(delivery(1, b"body"))

    assert (reading.taken, reading.passed_on) == ([], delivery(1, b"body"))


def test_a_number_that_another_channel_has_got_is_not_forgotten() -> None:
    reading = Reading()
    reading.protocol.forget(OURS, Reading())
    reading.feed(delivery(1, b"body"))

    assert reading.taken == [taken(1, b"body")]


def test_a_listener_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Reading):
        def on_delivered(self, content: Content) -> None:
            raise ValueError

    reading = Reading()
    reading.protocol.listen(5, Failing())
    reading.feed(delivery(1, b"a", channel=5) + delivery(2, b"b"))

    assert reading.taken == [taken(2, b"b")]
    assert "a bug" in caplog.text


def test_the_alarm_of_the_broker_is_seen() -> None:
    reading = Reading()
    seen = [reading.protocol.writer.blocked]
    for method in (Connection.Blocked("low on memory"), Connection.Unblocked()):
        reading.feed(frame.marshal(method, 0))
        seen.append(reading.protocol.writer.blocked)

    assert seen == [None, "low on memory", None]


def test_the_client_library_hears_of_life_while_only_deliveries_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(Reading.loop, "time", lambda: now)
    reading = Reading()

    for second in (0.5, 1.2, 1.5, 2.5):
        now = second
        reading.feed(delivery(1, b"body"))

    assert reading.passed_on == frame.marshal(Heartbeat(), 0) * 2


def test_nothing_is_added_to_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(Reading.loop, "time", lambda: now)
    reading = Reading()
    reading.protocol.forget(OURS, reading)

    now = 100.0
    reading.feed(METHODS[7])

    assert reading.passed_on == METHODS[7]


# --- garbage ---------------------------------------------------------------------------------------


@given(st.binary(min_size=7, max_size=300))
def test_garbage_breaks_the_connection_or_waits_for_more(raw: bytes) -> None:
    reading = Reading()
    reading.feed(raw)

    assert reading.reader.exception() is None or isinstance(reading.reader.exception(), BrokenFrame)
    if raw[0] not in (1, 2, 3, 8) or int.from_bytes(raw[3:7]) > 131_072:
        assert isinstance(reading.reader.exception(), BrokenFrame)


@given(st.lists(PIECES, min_size=1, max_size=4), st.data())
def test_a_byte_that_is_wrong_never_escapes(
    pieces: list[tuple[bytes, Taken | None]], data: st.DataObject
) -> None:
    stream = bytearray(b"".join(raw for raw, _ in pieces))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] = data.draw(st.integers(0, 255))

    reading = Reading()
    reading.feed(bytes(stream))

    assert reading.reader.exception() is None or isinstance(reading.reader.exception(), BrokenFrame)


def _with_wrong_end(raw: bytes) -> bytes:
    return raw[:-1] + b"\x00"


def _with_other_type(raw: bytes) -> bytes:
    return b"\x07" + raw[1:]


def _with_huge_length(raw: bytes) -> bytes:
    return raw[:3] + b"\x7f\xff\xff\xff" + raw[7:]


@pytest.mark.parametrize("broken", [_with_wrong_end, _with_other_type, _with_huge_length])
@pytest.mark.parametrize("raw", [METHODS[7], delivery(1, b"")], ids=["others", "ours"])
def test_a_broken_frame_breaks_the_connection(raw: bytes, broken: Callable[[bytes], bytes]) -> None:
    reading = Reading()
    reading.feed(broken(raw), METHODS[7])

    assert isinstance(reading.reader.exception(), BrokenFrame)
    assert (reading.taken, reading.passed_on) == ([], b"")


@pytest.mark.parametrize(
    "payload",
    [
        b"\x00\x3c\x00\x3c",
        b"\x00\x3c\x00\x3c\x05ct",
        b"\x00\x3c\x00\x3c\x01c" + bytes(9),
        b"\x00\x3c\x00\x50" + bytes(8),
        b"\x00\x3c\x00\x78",
        b"\x00\x3c\x00\x32\x01\x38\x05NO",
    ],
)
def test_a_frame_that_is_cut_off_breaks_the_connection(payload: bytes) -> None:
    reading = Reading()
    reading.feed(b"\x01\x00\x03" + len(payload).to_bytes(4) + payload + b"\xce")

    assert isinstance(reading.reader.exception(), BrokenFrame)


def test_a_close_by_the_broker_is_seen_and_passed_on() -> None:
    close = frame.marshal(Channel.Close(406, "PRECONDITION_FAILED", 60, 80), OURS)
    reading = Reading()
    reading.feed(close)

    assert (reading.closing, reading.passed_on) == (True, close)


def test_a_longer_frame_is_taken_where_the_broker_said_so() -> None:
    body = bytes(500_000)
    reading = Reading()
    reading.feed(frame.marshal(Connection.Tune(2047, 1_000_000, 60), 0))
    reading.feed(delivery(1, body, part=500_000))
    assert reading.taken == [taken(1, body)]

    reading = Reading()
    reading.feed(delivery(1, body, part=500_000))
    assert isinstance(reading.reader.exception(), BrokenFrame)


def _frames(raw: bytes) -> list[bytes]:
    frames = []
    while raw:
        size = int.from_bytes(raw[3:7]) + 8
        frames.append(raw[:size])
        raw = raw[size:]
    return frames
