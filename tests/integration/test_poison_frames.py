"""Messages whose properties no client can read end in the DLQ, and harm neither neighbour nor connection."""

import base64
import sys
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from typing import Any, Literal

import pika  # type: ignore[import-untyped]
import pytest

from autosell_rmq.codec import decode
from tests.integration.bad_input_fixtures import Recorder, Serve, publish_by_pika, serving
from tests.support import services
from tests.support.waiting import PATIENCE

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(PATIENCE * 4)]

type Kind = Literal["classic", "quorum"]
KINDS: list[Kind] = ["classic", "quorum"]


def nested(levels: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for _ in range(levels):
        table = {"n": table}
    return table


POISONS: dict[str, tuple[dict[str, Any], str]] = {
    "correlation_id": ({"correlation_id": b"m\xfcsli"}, "correlation_id is no UTF-8"),
    "content_type": ({"content_type": b"\xff\xfe"}, "content_type is no UTF-8"),
    "reply_to": ({"reply_to": b"\x80"}, "reply_to is no UTF-8"),
    "message_id": ({"message_id": b"\xc3("}, "message_id is no UTF-8"),
    "type": ({"type": b"\xe9"}, "type is no UTF-8"),
    "header name": ({"headers": {b"\xe9": 1, "good": 2}}, "the name of a header is no UTF-8"),
    "timestamp": ({"timestamp": 2**63}, "the timestamp 9223372036854775808 is beyond the calendar"),
    "nanoseconds": ({"timestamp": 1_700_000_000 * 10**9}, "is beyond the calendar"),
    "depth": ({"headers": {"deep": nested(2000)}}, "nested deeper than 100 levels"),
}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with serving("rabbitmq") as serve:
        yield serve


@contextmanager
def deep_recursion() -> Generator[None]:
    """For the other client, which writes tables by recursion."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poison", POISONS)
async def test_a_poison_frame_is_dead_lettered_and_its_neighbours_are_handled_once(
    serve: Serve, kind: Kind, poison: str
) -> None:
    recorder = Recorder()
    service = await serve(recorder, queue_type=kind)
    properties, why = POISONS[poison]

    before = await service.send(b"1")
    with deep_recursion():
        publish_by_pika(service.queue, b"\x00 the body, whole", **properties)
    after = await service.send(b"3")
    replies = {(await service.reply())["correlation_id"] for _ in range(2)}

    envelope = await service.dead()
    assert replies == {before, after}
    assert envelope.reason_code == "invalid_message"
    assert why in envelope.reason
    assert envelope.body == b"\x00 the body, whole"
    assert sorted(map(str, recorder.payloads)) == ["1", "3"]
    assert await service.leftovers() == (0, 0)


async def test_the_dead_letter_shows_what_can_be_read_and_keeps_the_bytes(serve: Serve) -> None:
    service = await serve(Recorder())
    publish_by_pika(
        service.queue,
        b"{}",
        correlation_id=b"m\xfcsli",
        headers={b"\xff": "a", "good": [1, {"b": 2}]},
        app_id="shop",
        timestamp=2**63,
    )

    letter = await service.letter()
    envelope = decode(letter.body)
    assert letter.correlation_id == "m\\xfcsli"
    assert isinstance(envelope, dict)
    assert envelope["original_headers"] == {"\\xff": "a", "good": [1, {"b": 2}]}
    assert envelope["original_properties"]["app_id"] == "shop"
    wire = base64.b64decode(envelope["original_properties"]["wire"])
    assert b"m\xfcsli" in wire
    assert b"\x01\xffS\x00\x00\x00\x01a" in wire
    assert (2**63).to_bytes(8) in wire


async def test_a_float_comes_through_a_retry_with_its_64_bits(serve: Serve) -> None:
    recorder = Recorder(ValueError("no"))
    service = await serve(recorder, max_retries=1, retry_delay=0.5)

    await service.send(b"1", headers={"price": 0.1})
    await service.dead()

    assert [message.headers["price"] for message in recorder.messages] == [0.1, 0.1]


async def test_a_poison_frame_that_was_handed_out_before_keeps_its_bytes(serve: Serve) -> None:
    """On a classic queue what comes again is counted by a copy; no copy of this one would be true."""
    service = await serve(Recorder(), queue_type="classic", start=False)
    await service.app.start_consuming()
    await service.app.stop_consuming()
    publish_by_pika(service.queue, b"1", correlation_id=b"m\xfcsli")
    _hand_out(service.queue)
    await service.app.start_consuming()

    envelope = decode((await service.letter()).body)

    assert isinstance(envelope, dict)
    assert b"m\xfcsli" in base64.b64decode(envelope["original_properties"]["wire"])


def _hand_out(queue: str) -> None:
    """A raw client takes the message and gives it back."""
    connection = pika.BlockingConnection(pika.URLParameters(services.RABBITMQ_URL))
    channel = connection.channel()
    method, _, _ = channel.basic_get(queue)
    assert method is not None
    channel.basic_nack(method.delivery_tag, requeue=True)
    connection.close()
