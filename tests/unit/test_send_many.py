"""Many messages: the window, errors, cancellation, and what crosses over from other threads."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from autosell_rmq import (
    BlockingProducer,
    ClosedError,
    ConfigError,
    Confirmed,
    EncodeError,
    PublishNacked,
    PublishUnknown,
    RabbitMQProducer,
    Refused,
    SendProgress,
    SendResult,
    Unknown,
)
from autosell_rmq.message import Publication
from autosell_rmq.producer import many
from autosell_rmq.producer.crossing import Crossing
from autosell_rmq.producer.many import Pace
from tests.support.instant_broker import InstantBroker
from tests.support.waiting import eventually


class Broker(InstantBroker):
    """Confirms when the test says so, and says of some bodies that it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.confirming = asyncio.Event()
        self.confirming.set()
        self.wrong: dict[bytes, Exception] = {}

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        self.bodies.append(publication.body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.confirming.wait()
            await asyncio.sleep(0)
            if (error := self.wrong.get(publication.body)) is not None:
                raise error
        finally:
            self.in_flight -= 1


class Messages:
    """A source that knows how many were taken from it."""

    def __init__(
        self, count: int, *, fails_at: int | None = None, error: BaseException | None = None
    ) -> None:
        self.taken = 0
        self._count = count
        self._fails_at = fails_at
        self._error = error or ValueError("no more rows")

    def __iter__(self) -> Iterator[int]:
        for number in range(self._count):
            if number == self._fails_at:
                raise self._error
            self.taken += 1
            yield number


async def coming(messages: Messages) -> AsyncIterator[int]:
    for message in messages:
        await asyncio.sleep(0)
        yield message


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
async def producer(broker: Broker) -> AsyncIterator[RabbitMQProducer]:
    async with RabbitMQProducer(broker=broker, outage_timeout=0) as producer:
        yield producer


@pytest.mark.parametrize("is_async", [False, True])
async def test_at_most_a_window_is_taken_and_not_confirmed(
    producer: RabbitMQProducer, broker: Broker, is_async: bool
) -> None:
    messages = Messages(1000)
    broker.confirming.clear()
    sending = asyncio.create_task(
        producer.send_many("orders", coming(messages) if is_async else messages, window=7)
    )
    await eventually(lambda: broker.in_flight == 7)
    taken = messages.taken
    broker.confirming.set()
    results = await sending

    assert taken == 7
    assert broker.most_in_flight == 7
    assert [result.index for result in results] == list(range(1000))
    assert all(isinstance(result, Confirmed) for result in results)
    assert len({result.correlation_id for result in results}) == 1000


async def test_a_list_has_its_window_too(producer: RabbitMQProducer, broker: Broker) -> None:
    await producer.send_many("orders", list(range(100)), window=7)

    assert broker.most_in_flight == 7


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_few_messages(producer: RabbitMQProducer, count: int) -> None:
    assert len(await producer.send_many("orders", list(range(count)))) == count
    assert len(await producer.send_many("orders", Messages(count))) == count
    assert len(await producer.send_many("orders", coming(Messages(count)))) == count


async def test_what_became_of_each(producer: RabbitMQProducer, broker: Broker) -> None:
    broker.wrong = {b"1": PublishNacked("full"), b"2": PublishUnknown("lost")}

    results = await producer.send_many("orders", [0, 1, 2, float("nan"), 4], window=2)

    match results:
        case [
            Confirmed(0),
            Refused(1, _, nacked),
            Unknown(2, _, lost),
            Refused(3, _, not_json),
            Confirmed(4),
        ]:
            assert isinstance(nacked, PublishNacked)
            assert isinstance(lost, PublishUnknown)
            assert isinstance(not_json, EncodeError)
        case _:
            pytest.fail(str(results))


async def test_only_the_failures(producer: RabbitMQProducer, broker: Broker) -> None:
    broker.wrong = {b"5": PublishNacked("full")}
    counts = SendProgress()

    def note(progress: SendProgress) -> None:
        nonlocal counts
        counts = progress

    [failure] = await producer.send_many("orders", range(10), only_failures=True, on_progress=note)

    assert (type(failure), failure.index) == (Refused, 5)
    assert (counts.confirmed, counts.refused, counts.unknown) == (9, 1, 0)


async def test_progress_after_each(producer: RabbitMQProducer) -> None:
    seen: list[int] = []
    await producer.send_many("orders", range(5), window=1, on_progress=lambda p: seen.append(p.confirmed))

    assert seen == [1, 2, 3, 4, 5]


async def test_ids_made_from_the_payloads(producer: RabbitMQProducer) -> None:
    results = await producer.send_many("orders", [7, 8], correlation_id_of=lambda data: f"order-{data}")
    events = await producer.publish_many("events", [("a", 9)], correlation_id_of=lambda data: f"event-{data}")

    assert [result.correlation_id for result in [*results, *events]] == ["order-7", "order-8", "event-9"]


async def test_a_wrong_option_is_no_result(producer: RabbitMQProducer, broker: Broker) -> None:
    with pytest.raises(ConfigError, match="ttl"):
        await producer.send_many("orders", range(10), ttl=-1)
    with pytest.raises(ConfigError, match="window"):
        await producer.send_many("orders", range(10), window=0)

    assert broker.bodies == []


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_error_of_the_messages_comes_after_what_is_in_flight(
    producer: RabbitMQProducer, broker: Broker, is_async: bool
) -> None:
    messages = Messages(100, fails_at=5)
    broker.confirming.clear()
    confirmed: list[int] = []
    sending = asyncio.create_task(
        producer.send_many(
            "orders",
            coming(messages) if is_async else messages,
            window=50,
            on_progress=lambda progress: confirmed.append(progress.confirmed),
        )
    )
    await eventually(lambda: broker.in_flight == 5)
    assert not sending.done()
    broker.confirming.set()

    with pytest.raises(ValueError, match="no more rows"):
        await sending
    assert confirmed == [1, 2, 3, 4, 5]


async def test_an_error_of_the_callback_does_not_wait_for_the_next_message(
    producer: RabbitMQProducer,
) -> None:
    closed = asyncio.Event()

    async def slowly() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    def fail(progress: SendProgress) -> None:
        raise RuntimeError("the callback's")

    with pytest.raises(RuntimeError, match="the callback's"):
        await producer.send_many("orders", slowly(), on_progress=fail)
    assert closed.is_set()


async def test_after_an_error_nothing_more_is_taken(producer: RabbitMQProducer) -> None:
    messages = Messages(1000)

    def fail_once(progress: SendProgress) -> None:
        if progress.confirmed == 3:
            raise RuntimeError("the callback's")

    with pytest.raises(RuntimeError, match="the callback's"):
        await producer.send_many("orders", messages, window=4, on_progress=fail_once)
    assert messages.taken <= 8


async def test_a_cancellation_leaves_nothing_in_flight(producer: RabbitMQProducer, broker: Broker) -> None:
    messages = Messages(1000)
    broker.confirming.clear()
    before = len(asyncio.all_tasks())
    sending = asyncio.create_task(producer.send_many("orders", messages, window=10))
    await eventually(lambda: broker.in_flight == 10)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending

    assert (broker.in_flight, messages.taken, len(asyncio.all_tasks())) == (0, 10, before)


async def test_a_broker_that_confirms_at_once_leaves_the_loop_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(many, "_BREATH", 0.0)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with RabbitMQProducer(broker=InstantBroker()) as producer:
        other = asyncio.create_task(others())
        await producer.send_many("orders", range(1000), window=10)
        other.cancel()
    assert turns >= 100


# --- from threads ------------------------------------------------------------------------------------


async def test_a_thread_iterates_itself_and_gets_the_results_in_order(
    producer: RabbitMQProducer, broker: Broker
) -> None:
    blocking = BlockingProducer(producer, asyncio.get_running_loop())
    threads: set[int] = set()
    broker.wrong = {b"17": PublishNacked("full")}

    def numbers() -> Iterator[int]:
        for number in range(100):
            threads.add(threading.get_ident())
            yield number

    def send() -> tuple[int, list[SendResult], list[SendResult]]:
        counts: list[int] = []

        def note(progress: SendProgress) -> None:
            threads.add(threading.get_ident())
            counts.append(progress.confirmed + progress.refused)

        results = blocking.send_many("orders", numbers(), window=10, on_progress=note)
        assert counts == list(range(1, 101))
        events = blocking.publish_many("events", [("a", 1), ("b", 2)], only_failures=True)
        return threading.get_ident(), results, events

    thread, results, events = await asyncio.to_thread(send)

    assert threads == {thread}
    assert [result.index for result in results] == list(range(100))
    assert [result.index for result in results if isinstance(result, Refused)] == [17]
    assert events == []
    assert broker.most_in_flight <= 10


async def test_a_threads_error_waits_for_what_is_in_flight(
    producer: RabbitMQProducer, broker: Broker
) -> None:
    blocking = BlockingProducer(producer, asyncio.get_running_loop())
    broker.confirming.clear()
    messages = Messages(100, fails_at=7)
    sending = asyncio.create_task(asyncio.to_thread(blocking.send_many, "orders", messages, window=10))
    await eventually(lambda: messages.taken == 7 and broker.in_flight == 5)
    done, _ = await asyncio.wait([sending], timeout=0.1)
    assert not done
    broker.confirming.set()

    with pytest.raises(ValueError, match="no more rows"):
        await sending
    assert (broker.in_flight, len(broker.bodies)) == (0, 5)


async def test_an_interrupted_thread_cancels_what_is_in_flight(
    producer: RabbitMQProducer, broker: Broker
) -> None:
    class Interrupted(BaseException):
        """As KeyboardInterrupt, which would end pytest."""

    broker.confirming.clear()
    blocking = BlockingProducer(producer, asyncio.get_running_loop())
    messages = Messages(100, fails_at=7, error=Interrupted())
    with pytest.raises(Interrupted):
        await asyncio.to_thread(blocking.send_many, "orders", messages, window=10)

    await eventually(lambda: broker.in_flight == 0)
    assert not broker.confirming.is_set()


async def test_never_from_inside_a_loop(producer: RabbitMQProducer) -> None:
    blocking = BlockingProducer(producer, asyncio.get_running_loop())
    with pytest.raises(ClosedError, match="event loop"):
        blocking.send_many("orders", [1])
    with pytest.raises(ClosedError, match="event loop"):
        blocking.publish_many("events", [("a", 1)])


@pytest.mark.parametrize("is_async", [False, True])
async def test_another_loop_sends_in_chunks(producer: RabbitMQProducer, is_async: bool) -> None:
    loop = asyncio.get_running_loop()
    messages = Messages(23)

    def elsewhere() -> list[SendResult]:
        async def send() -> list[SendResult]:
            crossing: Crossing[int] = Crossing(
                lambda chunk, pace: producer.send_paced("orders", chunk, pace, None, {}),
                Pace(window=10),
                lambda call: asyncio.run_coroutine_threadsafe(call, loop),
            )
            return await crossing.arun(coming(messages) if is_async else messages)

        return asyncio.run(send())

    assert [result.index for result in await asyncio.to_thread(elsewhere)] == list(range(23))
