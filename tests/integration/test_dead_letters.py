"""What lies in a DLQ: the seed's five fields and ours, and the message itself, byte for byte."""

import base64
import datetime as dt
import json
from typing import Any

from autosell_rmq import Reject
from autosell_rmq.codec import restore
from tests.integration.app_fixtures import Stage

REASON = "Сообщение отклонено: не наш заказ"


async def reject(payload: object) -> None:
    raise Reject("не наш заказ")


async def test_the_envelope_has_every_field(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue)(reject)
    await app.start_consuming()
    began = dt.datetime.now(dt.UTC)
    sent_at = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
    sent = await stage.ask(
        queue,
        body='{"город": "Алматы"}'.encode(),
        headers={"tenant": "kz", "raw": b"\xff", "n": 1, "deep": {"list": [1, None, True]}},
        message_id="message-1",
        timestamp=sent_at,
        type="order",
        app_id="shop",
        priority=3,
        content_type="application/json",
        content_encoding="utf-8",
    )
    reply_to = stage.queues[-1]
    letter = await stage.letter_message(queue)
    envelope = restore(letter.body)
    fields = fields_of(letter.body)

    failed_at = dt.datetime.fromisoformat(fields.pop("failed_at"))
    assert failed_at.tzinfo is not None
    assert began <= failed_at <= dt.datetime.now(dt.UTC)
    assert fields == {
        "original_body": '{"город": "Алматы"}',
        "reason": REASON,
        "correlation_id": sent,
        "original_queue": queue,
        "reason_code": "rejected",
        "attempts": 1,
        "error_type": "Reject",
        "message_id": "message-1",
        "original_body_encoding": "utf-8",
        "original_headers": {
            "tenant": "kz",
            "raw": {"$base64": "/w=="},
            "n": 1,
            "deep": {"list": [1, None, True]},
            **{k: v for k, v in fields["original_headers"].items() if k.startswith("x-")},
        },
        "original_properties": {
            "exchange": "",
            "routing_key": queue,
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "persistent": True,
            "priority": 3,
            "reply_to": reply_to,
            "expiration": None,
            "timestamp": sent_at.isoformat(),
            "type": "order",
            "user_id": None,
            "app_id": "shop",
        },
    }
    assert envelope.properties.headers["raw"] == b"\xff"
    assert (letter.correlation_id, letter.message_id) == (sent, "message-1")
    assert letter.headers["x-death-reason"] == REASON
    assert letter.headers["x-autosell-reason-code"] == "rejected"
    assert letter.properties.content_type == "application/json"
    assert letter.properties.persistent


def fields_of(body: bytes) -> dict[str, Any]:
    fields = json.loads(body)
    assert isinstance(fields, dict)
    return fields


async def test_a_body_that_is_no_text_is_kept_in_base64(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue)(reject)
    await app.start_consuming()
    body = bytes(range(256))
    sent = await stage.ask(queue, body=body)

    assert (await stage.reply(sent))["error_code"] == "invalid_json"
    letter = await stage.letter_message(queue)
    fields = fields_of(letter.body)
    assert fields["original_body_encoding"] == "base64"
    assert base64.b64decode(fields["original_body"]) == body
    assert fields["reason"].startswith("Ошибка парсинга JSON: ")
    assert restore(letter.body).body == body


async def test_a_body_over_the_limit_is_buried_raw(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(max_body_bytes=1000)
    app.handler(queue)(reject)
    await app.start_consuming()
    body = b'"' + b"x" * 1000 + b'"'
    sent = await stage.ask(queue, body=body, headers={"tenant": "kz"}, message_id="message-1")

    reply = await stage.reply(sent)
    letter = await stage.letter_message(queue)
    assert reply["error_code"] == "too_large"
    assert "1002 bytes" in reply["error"]
    assert letter.body == body
    assert (letter.correlation_id, letter.message_id) == (sent, "message-1")
    assert letter.headers["tenant"] == "kz"
    assert letter.headers["x-autosell-reason-code"] == "too_large"
    assert letter.headers["x-autosell-queue"] == queue
    assert "1002 bytes" in str(letter.headers["x-death-reason"])
    assert dt.datetime.fromisoformat(str(letter.headers["x-autosell-failed-at"])).tzinfo is not None


async def test_a_message_whose_envelope_would_be_over_the_limit_is_buried_raw(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(max_body_bytes=1000)
    app.handler(queue)(reject)
    await app.start_consuming()
    body = b'"' + b"x" * 900 + b'"'
    sent = await stage.ask(queue, body=body)

    assert (await stage.reply(sent))["error_code"] == "rejected"
    letter = await stage.letter_message(queue)
    assert letter.body == body
    assert letter.headers["x-death-reason"] == REASON
    assert letter.headers["x-autosell-reason-code"] == "rejected"


async def test_a_message_with_nothing_but_a_body(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue)(reject)
    await app.start_consuming()
    await stage.send_bare(queue, b"{}")

    letter = await stage.letter_message(queue)
    fields = fields_of(letter.body)
    assert (fields["correlation_id"], fields["message_id"]) == (None, None)
    assert fields["original_body"] == "{}"
    assert letter.message_id is not None


async def test_a_dead_letter_sent_back_is_handled_again(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=0)
    broken = True

    @app.handler(queue)
    async def handler(payload: dict[str, int]) -> int:
        if broken:
            raise ValueError("a bug")
        return payload["n"]

    await app.start_consuming()
    sent = await stage.ask(queue, {"n": 5})
    assert (await stage.reply(sent))["error_code"] == "unhandled_exception"
    envelope = restore((await stage.letter_message(queue)).body)

    broken = False
    wire = envelope.properties
    again = await stage.ask(
        envelope.queue, body=envelope.body, correlation_id=wire.correlation_id, message_id=wire.message_id
    )
    assert again == sent
    assert (await stage.reply(sent))["data"] == 5  # a failure is never remembered as done
