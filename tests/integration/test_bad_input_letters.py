"""Dead letters that nobody has buried: anybody may write one and send it to a work queue."""

import json
from collections.abc import AsyncIterator

import pytest

from autosell_rmq.message import REASON_CODE
from tests.integration.bad_input_fixtures import BROKERS, Recorder, Serve, serving

GOOD: dict[str, object] = {"original_body": "1", "reason": "r", "correlation_id": "c", "original_queue": "q"}
FORGED: dict[str, dict[str, object]] = {
    "no table of properties": {"original_properties": "none"},
    "a list of properties": {"original_properties": [1]},
    "ids of other kinds": {"correlation_id": 5, "message_id": {"a": 1}},
    "long ids": {"correlation_id": "x" * 300, "message_id": "y" * 300},
    "ids that are no Unicode": {"correlation_id": "\ud800"},
    "a reply address of another kind": {"original_properties": {"reply_to": ["a"]}},
    "a long reply address": {"original_properties": {"reply_to": "r" * 300}},
    "a reply address of nobody": {"original_properties": {"reply_to": "nobody.there"}},
    "an odd priority": {"original_properties": {"priority": 10**12}},
    "a priority of words": {"original_properties": {"priority": "high"}},
    "an odd time": {"original_properties": {"timestamp": "soon"}},
    "a time of another kind": {"original_properties": {"timestamp": 5}},
    "an early time": {"original_properties": {"timestamp": "0001-01-01T00:00:00"}},
    "odd content types": {"original_properties": {"content_type": 5, "content_encoding": "z" * 300}},
    "an odd persistence": {"original_properties": {"persistent": "no"}},
    "an odd app": {"original_properties": {"app_id": "a" * 300, "type": 5}},
    "headers of another kind": {"original_headers": [1, 2]},
    "odd headers": {"original_headers": {"a": 10**30, "b" * 300: 1, "c": [{"$base64": "%"}]}},
    "odd tags": {"original_headers": {"a": {"$datetime": "soon"}, "b": {"$base64": 5}}},
    "many headers": {"original_headers": {f"h{n}": "v" * 1000 for n in range(300)}},
    "deep headers": {"original_headers": {"a": json.loads("[" * 150 + "]" * 150)}},
    "no base64": {"original_body": "%%%", "original_body_encoding": "base64"},
    "a body of another kind": {"original_body": 5},
    "a letter in a letter": {
        "original_body": json.dumps({**GOOD, "original_body": json.dumps(GOOD)}),
        "original_headers": {REASON_CODE: "rejected"},
    },
}


@pytest.fixture(params=BROKERS)
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    async with serving(request.param) as serve:
        yield serve


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("forged", FORGED)
async def test_a_forged_letter_is_handled_or_buried_once_and_harms_no_neighbour(
    serve: Serve, forged: str, failing: bool
) -> None:
    recorder = Recorder(ValueError("no") if failing else None)
    service = await serve(recorder, max_retries=1, retry_delay=0.5, settings={"backoff": 0.1})

    await service.send(json.dumps({**GOOD, **FORGED[forged]}).encode(), headers={REASON_CODE: "rejected"})
    await service.send(b"2")

    counts = service.app.statistics
    await service.until(lambda: counts.handled + counts.dead_lettered == 2)
    assert recorder.runs <= 4
    assert await service.leftovers() == (0, counts.dead_lettered)
