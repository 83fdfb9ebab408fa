"""Bodies that are no JSON, or too much of it: to the DLQ at once, byte for byte, with the rest going on."""

import gzip
import json
from collections.abc import AsyncIterator

import pydantic
import pytest

from autosell_rmq import Message
from autosell_rmq.codec import restore
from tests.integration.bad_input_fixtures import BROKERS, Recorder, Serve, serving

NO_JSON = {
    "empty": b"",
    "blank": b" \n",
    "text": b"not json",
    "cut": b'{"a": 1',
    "trailing_comma": b'{"a": 1,}',
    "single_quotes": b"{'a': 1}",
    "two_documents": b"{} {}",
    "nul": b"\x00",
    "nul_behind": b"{}\x00",
    "not_utf8": b"\xc3\x28",
    "not_utf8_in_a_string": b'{"a": "\xff"}',
    "latin1": '{"city": "Алматы"}'.encode("cp1251"),
    "utf16": '{"a": 1}'.encode("utf-16"),
    "utf16_without_bom": '{"a": 1}'.encode("utf-16-le"),
    "utf32": '{"a": 1}'.encode("utf-32"),
    "utf8_bom": b"\xef\xbb\xbf{}",
    "lone_surrogate": rb'{"a": "\ud800"}',
    "raw_newline_in_a_string": b'{"a": "\n"}',
    "pickle": b"\x80\x04N.",
    "nested_100k": b"[" * 100_000 + b"]" * 100_000,
    "nested_100k_open": b'{"a":' * 100_000,
    "int_of_5000_digits": b'{"a": ' + b"9" * 5000 + b"}",
    "infinite_1e999": b'{"a": 1e999}',
    "infinite_minus": b'{"a": [-1E+400]}',
    "nan": b'{"a": NaN}',
    "infinity": b'{"a": Infinity}',
    "minus_infinity": b"-Infinity",
}


@pytest.fixture(params=BROKERS)
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    async with serving(request.param) as serve:
        yield serve


class Order(pydantic.BaseModel):
    a: float | list[float] | str = 0.0


@pytest.mark.parametrize("typed", [False, True], ids=["plain", "typed"])
async def test_what_is_no_json_is_dead_lettered_at_once_and_the_next_message_is_handled(
    serve: Serve, typed: bool
) -> None:
    seen: list[object] = []

    async def plain(payload: object) -> str:
        seen.append(payload)
        return "ok"

    async def of_orders(payload: Order) -> str:
        seen.append(payload)
        return "ok"

    service = await serve(of_orders if typed else plain, prefetch=50)
    names = {await service.send(body): name for name, body in NO_JSON.items()}
    good = await service.send(b'{"a": 1}')

    replies = [await service.reply() for _ in range(len(NO_JSON) + 1)]
    letters = {}
    for _ in NO_JSON:
        letter = await service.letter()
        letters[names[letter.correlation_id]] = letter

    answers = {reply["correlation_id"]: reply for reply in replies}
    assert answers.pop(good) == {"success": True, "data": "ok", "correlation_id": good}
    assert {names[cid]: reply["error_code"] for cid, reply in answers.items()} == dict.fromkeys(
        NO_JSON, "invalid_json"
    )
    restored = {name: restore(letter.body) for name, letter in letters.items()}
    assert {name: envelope.body for name, envelope in restored.items()} == NO_JSON
    assert {envelope.reason_code for envelope in restored.values()} == {"invalid_json"}
    assert all(envelope.reason.startswith("Ошибка парсинга JSON: ") for envelope in restored.values())
    assert {json.loads(letter.body)["attempts"] for letter in letters.values()} == {0}
    assert len(seen) == 1  # the good one; nothing else was run, and nothing is retried
    assert await service.leftovers() == (0, 0)


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"null", None),
        (b"[]", []),
        (b"0", 0),
        (b'"text"', "text"),
        (b'{"a": 1, "a": 2}', {"a": 2}),  # as every JSON reader in the house takes it: the last one counts
        (b'{"a": "\\u0000"}', {"a": "\x00"}),
        (b'{"a": 1e308}', {"a": 1e308}),
        (b'{"a": 1e-999}', {"a": 0.0}),
        (b'{"a": "1e999 NaN Infinity"}', {"a": "1e999 NaN Infinity"}),
        (b"9" * 4000, int("9" * 4000)),
        ('{"a": "\U0001f47b \u202e"}'.encode(), {"a": "\U0001f47b \u202e"}),
    ],
)
async def test_odd_json_is_handled_as_it_stands(serve: Serve, body: bytes, payload: object) -> None:
    recorder = Recorder()
    service = await serve(recorder)

    sent_as = await service.send(body)

    assert await service.reply() == {"success": True, "data": payload, "correlation_id": sent_as}
    assert recorder.payloads == [payload]


async def test_depth_200_is_handled_and_a_level_more_is_refused(serve: Serve) -> None:
    handled = 0

    async def handler(payload: object) -> None:
        nonlocal handled
        handled += 1

    service = await serve(handler)

    await service.send(b"[" * 200 + b"1" + b"]" * 200)
    await service.send(b"[" * 201 + b"1" + b"]" * 201)

    assert {(await service.reply())["success"] for _ in range(2)} == {True, False}
    assert (await service.dead()).body == b"[" * 201 + b"1" + b"]" * 201
    assert handled == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"[]", "dict"), (b'{"quantity": 1}', "item"), (b'{"item": 1, "quantity": "many"}', "quantity")],
)
async def test_json_of_another_shape_is_dead_lettered_as_invalid_message(
    serve: Serve, body: bytes, said: str
) -> None:
    class Item(pydantic.BaseModel):
        item: int
        quantity: int = 1

    runs: list[Item] = []

    async def handler(item: Item) -> None:
        runs.append(item)

    service = await serve(handler)

    await service.send(body)

    assert (await service.reply())["error_code"] == "invalid_message"
    envelope = await service.dead()
    assert (envelope.body, envelope.reason_code) == (body, "invalid_message")
    assert envelope.reason.startswith("Сообщение не прошло проверку: ")
    assert said in envelope.reason or said == "dict"
    assert runs == []


# --- content_type and content_encoding are only told, never obeyed ---------------------------------


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-python-pickle", "x" * 255])
@pytest.mark.parametrize("content_encoding", [None, "gzip", "utf-16"])
async def test_json_is_handled_whatever_it_is_called(
    serve: Serve, content_type: str | None, content_encoding: str | None
) -> None:
    recorder = Recorder()
    service = await serve(recorder)

    await service.send(b'{"a": 1}', content_type=content_type, content_encoding=content_encoding)

    assert (await service.reply())["data"] == {"a": 1}
    assert (recorder.messages[0].properties.content_type or None) == (content_type or None)


async def test_a_compressed_body_is_never_unpacked(serve: Serve) -> None:
    recorder = Recorder()
    service = await serve(recorder)
    bomb = gzip.compress(b" " * 20_000_000 + b"{}")

    await service.send(bomb, content_type="application/json", content_encoding="gzip")

    envelope = await service.dead()
    assert (envelope.body, envelope.reason_code) == (bomb, "invalid_json")
    assert envelope.properties.content_encoding == "gzip"
    assert recorder.runs == 0


# --- size ------------------------------------------------------------------------------------------


async def test_a_body_over_the_limit_lies_raw_in_the_dlq_with_the_reason_in_its_headers(
    serve: Serve,
) -> None:
    recorder = Recorder()
    service = await serve(recorder, settings={"max_body_bytes": 10_000})
    body = json.dumps("x" * 10_000).encode()

    await service.send(body, content_type="text/plain", message_id="big", headers={"tenant": "kz"})
    await service.send(b"{}")

    replies = {reply.get("error_code"): reply for reply in [await service.reply(), await service.reply()]}
    assert set(replies) == {None, "too_large"}
    assert "10002 bytes, the limit is 10000" in replies["too_large"]["error"]
    letter = await service.letter()
    assert letter.body == body
    assert letter.headers["x-death-reason"] == (
        "Сообщение слишком большое: the body takes 10002 bytes, the limit is 10000"
    )
    assert letter.headers["x-autosell-reason-code"] == "too_large"
    assert letter.headers["x-autosell-queue"] == service.queue
    assert letter.headers["tenant"] == "kz"
    assert (letter.message_id, letter.properties.content_type) == ("big", "text/plain")
    assert (letter.reply_to, letter.properties.persistent) == (service.reply_queue, True)
    assert recorder.runs == 1
    assert await service.leftovers() == (0, 0)


async def test_a_body_at_the_limit_is_handled_and_its_failure_fits_the_dlq(serve: Serve) -> None:
    """Its envelope would be over the limit: it lies there raw as well."""
    service = await serve(Recorder(ValueError("no")), settings={"max_body_bytes": 10_000}, max_retries=0)
    body = json.dumps("x" * 9_998).encode()

    await service.send(body)

    assert (await service.reply())["error_code"] == "unhandled_exception"
    letter = await service.letter()
    assert letter.body == body
    assert letter.headers["x-autosell-reason-code"] == "unhandled_exception"


async def test_17_mib_are_over_the_default_limit_and_lose_nothing(serve: Serve) -> None:
    recorder = Recorder()
    service = await serve(recorder)
    body = b'"' + b"x" * (17 * 1024 * 1024) + b'"'

    await service.send(body)
    await service.send(b"{}")

    assert {(await service.reply()).get("error_code") for _ in range(2)} == {None, "too_large"}
    letter: Message = await service.letter()
    assert letter.body == body
    assert recorder.runs == 1
