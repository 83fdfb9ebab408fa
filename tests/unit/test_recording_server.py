"""The recording broker of a test knows when nothing happens any more, or only after some time."""

from autosell_rmq import RabbitMQ
from autosell_rmq.testing import MemoryServer, Publication, memory_server
from autosell_rmq.testing.recording import RecordingServer
from tests.integration.app_fixtures import Gate
from tests.support.waiting import eventually

DELAY = "autosell.delay.1s"


async def test_no_time_passes_while_a_handler_runs() -> None:
    server, gate = RecordingServer(), Gate()
    with memory_server(server=server):
        async with RabbitMQ(server.url) as rmq:

            @rmq.handler("orders")
            async def handle(data: int) -> None:
                await gate()

            await rmq.start_consuming()
            assert (server.is_at_rest, server.only_delays) == (True, False)
            await rmq.producer.send_fire_and_forget("orders", 1)
            assert (server.is_at_rest, server.only_delays) == (True, False)  # it is held
            assert server.release(server.held.popleft())
            await gate.has(1)
            assert (server.is_at_rest, server.only_delays) == (False, False)

            MemoryServer.publish(server, Publication(body=b"1", routing_key=DELAY))
            assert (server.is_at_rest, server.only_delays) == (False, False)
            gate.open()
            await eventually(lambda: server.only_delays)
            assert not server.is_at_rest


async def test_what_nobody_here_handles_is_not_released() -> None:
    server = RecordingServer()
    with memory_server(server=server):
        async with RabbitMQ(server.url) as rmq:
            await rmq.producer.send_fire_and_forget("mails", 1)
            await rmq.producer.publish_to_exchange("events", "order.created", 1)
            assert [server.release(held) for held in server.held] == [False, False]
            assert len(server.sent) == 2
