"""The product at work, in a few seconds: ``make demo``.

On the RabbitMQ of RABBITMQ_URL or of localhost where one answers, else on a broker in memory. The code of
the shop is in shop.py, that of the consumer process in worker.py, what is shown in scenes.py. The services of
the last scene are the projects of example_projects; services.py starts them.
"""

import asyncio
import sys
import time
import uuid

import scenes
from backstage import find_broker
from screen import banner, console
from services import QUEUES, EndedError, starting
from worker import working

from autosell_rmq import AutosellRmqError, RabbitMQProducer

LONGEST = 55.0  # seconds; it takes about nine


async def main() -> None:
    """Find a broker, play the scenes, clean up."""
    started = time.monotonic()
    run = uuid.uuid4().hex[:6]
    queue, prefix = f"demo.orders.{run}", f"demo.{run}"
    queues = [queue, *(f"{prefix}.{name}" for name in QUEUES)]
    async with asyncio.timeout(LONGEST), find_broker() as (backstage, why):
        banner(f"[bold]autosell-rmq[/bold] on [bold]{backstage.description}[/bold]", f"[dim]{why}[/dim]")
        try:
            async with (
                starting(backstage.url, prefix) as services,
                working(backstage.url, queue) as worker,
                RabbitMQProducer(backstage.url) as producer,
            ):
                await scenes.an_order(producer, queue)
                await scenes.a_duplicate(producer, queue)
                await scenes.a_failure(producer, queue, backstage)
                await scenes.a_stop(producer, queue, worker)
                await scenes.a_gateway(services)
        finally:
            await backstage.clean(*queues, *(f"{name}_dlq" for name in queues), exchange=f"{prefix}.events")
    seconds = time.monotonic() - started
    console.print(
        f"\n[bold]Done[/bold] in {seconds:.0f} s; {queue} and the other queues of this run are deleted."
    )


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    except TimeoutError:
        sys.exit(f"demo: not done after {LONGEST:g} s")
    except (AutosellRmqError, EndedError) as error:
        sys.exit(f"demo: {error}")
