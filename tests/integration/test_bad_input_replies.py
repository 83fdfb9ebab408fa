"""Reply addresses are anybody's word: own queues, gone ones, malformed ones. No loop, nobody held up."""

import json
from collections.abc import AsyncIterator

import pytest

from autosell_rmq import PublishError
from autosell_rmq.message import DIRECT_REPLY_TO
from tests.integration.bad_input_fixtures import BROKERS, Recorder, Serve, serving
from tests.support.inbox import Inbox
from tests.support.names import unique
from tests.support.waiting import eventually


@pytest.fixture(params=BROKERS)
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    async with serving(request.param) as serve:
        yield serve


@pytest.mark.parametrize(
    "address",
    [
        "{queue}",
        "{queue}_dlq",
        "autosell.delay.1s",
        "autosell.delay.999s",
        "autosell.home",
        "autosell.homeless",
    ],
)
async def test_a_reply_to_a_queue_of_the_app_is_not_sent_but_the_message_is_handled(
    serve: Serve, address: str
) -> None:
    recorder = Recorder()
    service = await serve(recorder)
    address = address.format(queue=service.queue)

    await service.send(b"1", reply_to=address)
    await service.send(b"no json", reply_to=address)
    await service.send(b"2")

    assert (await service.reply())["data"] == 2
    assert (await service.dead()).body == b"no json"
    await service.until(lambda: service.app.statistics.replies_refused == 2)
    assert recorder.payloads == [1, 2]
    assert await service.leftovers() == (0, 0)


async def test_a_reply_to_another_queue_of_the_same_app_is_not_sent(serve: Serve) -> None:
    recorder = Recorder()
    service = await serve(recorder, start=False)
    other = unique("other")
    service.app.handler(other)(recorder)
    await service.app.start_consuming()

    await service.send(b"1", reply_to=other)
    await service.until(lambda: service.app.statistics.replies_refused == 1)

    assert recorder.runs == 1
    assert await serve.lab.depth(other) == 0
    await service.app.stop_consuming()
    for name in (other, f"{other}_dlq"):
        await serve.lab.delete_queue(name)


async def test_a_reply_to_another_apps_work_queue_is_dead_lettered_there_and_ends(serve: Serve) -> None:
    """Two services that are told to answer each other do not play tennis."""
    victim_runs, asked_runs = Recorder(), Recorder()
    victim = await serve(victim_runs)
    asked = await serve(asked_runs)

    await asked.send(b"1", reply_to=victim.queue, correlation_id="c-1")

    envelope = await victim.dead()
    assert (envelope.reason_code, envelope.properties.type) == ("rejected", "reply")
    assert json.loads(envelope.body) == {"success": True, "data": 1, "correlation_id": "c-1"}
    assert envelope.properties.reply_to is None
    assert (victim_runs.runs, asked_runs.runs) == (0, 1)
    assert await victim.leftovers() == (0, 0)
    assert await asked.leftovers() == (0, 0)


async def test_replies_go_to_the_allowed_queues_and_direct_addresses_alone(serve: Serve) -> None:
    recorder = Recorder()
    service = await serve(recorder, settings={"reply_to_allowed": ["replies.*", "billing"]})
    elsewhere = await serve.lab.queue(serve.outside)

    for address in (elsewhere, "replies", "xreplies.a", "billing2", "Billing", f"{DIRECT_REPLY_TO}X"):
        await service.send(b"1", reply_to=address)
    await service.until(lambda: service.app.statistics.replies_refused == 6)
    assert (await service.app.producer.send_message(service.queue, 2))["data"] == 2
    assert await serve.lab.depth(elsewhere) == 0
    assert recorder.runs == 7

    for address in ("replies.gone", "billing"):  # allowed; there is nobody, and that is another number
        await service.send(b"3", reply_to=address)
    await service.until(lambda: service.app.statistics.replies_lost == 2)


async def test_no_list_allows_the_apps_own_queues(serve: Serve) -> None:
    service = await serve(Recorder(), settings={"reply_to_allowed": ["*"]})

    await service.send(b"1", reply_to=service.queue)
    await service.send(b"2", reply_to=service.dlq)

    await service.until(lambda: service.app.statistics.replies_refused == 2)
    await service.send(b"3")
    assert (await service.reply())["data"] == 3
    assert await service.leftovers() == (0, 0)


async def test_an_empty_list_leaves_direct_addresses(serve: Serve) -> None:
    service = await serve(Recorder(), settings={"reply_to_allowed": []})

    await service.send(b"1")
    await service.until(lambda: service.app.statistics.replies_refused == 1)

    assert (await service.app.producer.send_message(service.queue, 2))["data"] == 2


async def test_a_message_of_type_reply_is_handled_where_the_handler_asks_for_it(serve: Serve) -> None:
    recorder = Recorder()
    service = await serve(recorder, accept_replies=True)

    await service.send(b"1", type="reply")

    assert (await service.reply())["data"] == 1
    assert recorder.runs == 1


async def test_a_reply_queue_that_is_gone_is_counted_and_the_message_acked(serve: Serve) -> None:
    recorder = Recorder()
    service = await serve(recorder)
    gone = await serve.lab.queue(serve.outside)
    await serve.lab.delete_queue(gone)

    await service.send(b"1", reply_to=gone, correlation_id="c-1")
    await service.until(lambda: service.app.statistics.replies_lost == 1)
    await service.send(b"1", correlation_id="c-1")  # asked again: the stored reply

    assert (await service.reply())["data"] == 1
    assert (recorder.runs, service.app.statistics.duplicates) == (1, 1)
    assert await service.leftovers() == (0, 0)


async def test_an_error_reply_that_nobody_takes_does_not_keep_the_letter_from_the_dlq(serve: Serve) -> None:
    service = await serve(Recorder())

    await service.send(b"no json", reply_to="nobody." + unique("gone"))

    assert (await service.dead()).body == b"no json"
    await service.until(lambda: service.app.statistics.replies_lost == 1)
    assert await service.leftovers() == (0, 0)


@pytest.mark.parametrize(
    "address",
    [
        f"{DIRECT_REPLY_TO}.garbage",
        f"{DIRECT_REPLY_TO}.",
        f"{DIRECT_REPLY_TO}.a.b.c.d",
        f"{DIRECT_REPLY_TO}.é",
        f"{DIRECT_REPLY_TO}X",
        "amq.default",
        "amq.topic",
        "amq.gen-gone",
        " ",
        "x" * 255,
        "\r\n\x1b[0m",
    ],
    ids=ascii,
)
async def test_a_malformed_reply_address_harms_neither_its_message_nor_the_neighbours(
    serve: Serve, address: str
) -> None:
    recorder = Recorder()
    service = await serve(recorder)

    await service.send(b"1")
    await service.send(b"2", reply_to=address)
    await service.send(b"3")

    assert {(await service.reply())["data"] for _ in range(2)} == {1, 3}
    await service.until(lambda: service.app.statistics.handled == 3)
    assert await service.leftovers() == (0, 0)


@pytest.mark.rabbitmq
async def test_a_reply_address_that_breaks_the_broker_is_given_up() -> None:
    """Base64 of no process in the address makes RabbitMQ 3.10 close the connection (INTERNAL_ERROR)."""
    async with serving("rabbitmq") as serve:
        recorder = Recorder()
        service = await serve(recorder, settings={"backoff": 0.1, "max_backoff": 0.2, "drain_timeout": 0.1})

        await service.send(b"1", reply_to=f"{DIRECT_REPLY_TO}.YWJj.x")
        await service.until(lambda: recorder.runs == 1)
        await service.send(b"2")

        await eventually(lambda: recorder.runs == 2, within=4)
        assert (await service.reply())["data"] == 2
        counts = service.app.statistics
        await eventually(lambda: (counts.replies, counts.replies_lost) == (1, 1))
        assert await service.leftovers() == (0, 0)


async def test_the_literal_direct_address_in_a_request_is_handled_like_one_that_is_gone() -> None:
    """In memory; RabbitMQ puts the real address there, see the next test."""
    async with serving("memory") as serve:
        recorder = Recorder()
        service = await serve(recorder)

        await service.send(b"1", reply_to=DIRECT_REPLY_TO)
        await service.send(b"2")

        assert (await service.reply())["data"] == 2
        await service.until(lambda: service.app.statistics.handled == 2)
        assert await service.leftovers() == (0, 0)


@pytest.mark.rabbitmq
async def test_the_literal_direct_address_is_refused_to_a_sender_who_does_not_listen_there() -> None:
    async with serving("rabbitmq") as serve:
        service = await serve(Recorder())

        with pytest.raises(PublishError, match="fast reply consumer does not exist"):
            await service.send(b"1", reply_to=DIRECT_REPLY_TO)
        await service.send(b"2")

        assert (await service.reply())["data"] == 2
        assert await service.leftovers() == (0, 0)


async def test_a_reply_carries_nothing_of_its_request_but_the_id(serve: Serve) -> None:
    service = await serve(Recorder())

    await service.send(
        b"1", correlation_id="c-1", headers={"CC": [service.queue], "BCC": [service.queue], "tenant": "x"}
    )

    reply = await service.reply_message()
    assert (reply.correlation_id, reply.properties.type, reply.reply_to) == ("c-1", "reply", None)
    assert {"CC", "BCC", "tenant"}.isdisjoint(reply.headers)


async def test_cc_of_a_failing_message_is_not_followed_by_its_copies(serve: Serve) -> None:
    """Or each retry would send one more message to whomever the sender put there."""
    service = await serve(Recorder(ValueError("no")), max_retries=1, retry_delay=0.1)
    elsewhere = await serve.lab.queue(serve.outside)
    inbox = await Inbox.of(serve.outside, elsewhere)

    await service.send(b"1", headers={"CC": [elsewhere], "BCC": [elsewhere]})
    await service.dead()

    copies = inbox.deliveries.qsize()
    assert copies <= 1  # what the sender's own publish sent there
    assert await service.leftovers() == (0, 0)
