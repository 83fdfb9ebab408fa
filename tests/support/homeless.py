"""What a test has left, or looks for, in the queue of messages without a home, which all tests share."""

from autosell_rmq.broker import Broker
from autosell_rmq.config import HOMELESS
from autosell_rmq.message import Message, Publication
from tests.support.inbox import Inbox
from tests.support.names import unique
from tests.support.publications import send


async def homeless_of(broker: Broker, home: str, count: int) -> list[Message]:
    """The messages for `home`, once so many have come; they stay."""
    inbox = await Inbox.of(broker, HOMELESS, prefetch=1000)
    found: list[Message] = []
    while len(found) < count:
        message = (await inbox.next()).message
        found += [message] if message.routing_key == home else []
    await inbox.subscription.close()
    return found


async def forget_homeless(broker: Broker, *homes: str) -> list[Message]:
    """Take out what is there for the queues of a test."""
    end = unique("end")
    await send(broker, Publication(body=b"", exchange=HOMELESS, routing_key=end))
    inbox = await Inbox.of(broker, HOMELESS, prefetch=1000)
    taken: list[Message] = []
    while (delivery := await inbox.next()).message.routing_key != end:
        if delivery.message.routing_key in homes:
            await delivery.ack()
            taken.append(delivery.message)
    await delivery.ack()
    await inbox.subscription.close()
    return taken
