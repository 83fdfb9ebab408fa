"""Publishing in tests, in one line."""

from collections.abc import Iterable

from autosell_rmq.broker import Broker
from autosell_rmq.message import Properties, Publication
from tests.support.waiting import PATIENCE

_PLAIN = Properties()


def to(
    queue: str, body: bytes = b"{}", properties: Properties = _PLAIN, *, mandatory: bool = True
) -> Publication:
    """A message to a queue, through the default exchange."""
    return Publication(body=body, routing_key=queue, properties=properties, mandatory=mandatory)


async def send(broker: Broker, *publications: Publication) -> None:
    """Publish one after the other, each confirmed before the next."""
    for publication in publications:
        await broker.publish(publication, timeout=PATIENCE)


async def send_bodies(broker: Broker, queue: str, bodies: Iterable[bytes]) -> None:
    """Publish bodies to a queue, in order."""
    await send(broker, *(to(queue, body) for body in bodies))
