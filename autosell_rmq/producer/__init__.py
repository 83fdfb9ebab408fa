"""Sending, from an event loop or from the threads beside it."""

from autosell_rmq.producer.acceptance import Acceptance
from autosell_rmq.producer.blocking import BlockingProducer
from autosell_rmq.producer.crossing import Submit
from autosell_rmq.producer.many_blocking import SendsManyAnywhere
from autosell_rmq.producer.prepared import PreparedSend
from autosell_rmq.producer.producer import RabbitMQProducer
from autosell_rmq.producer.results import Confirmed, Refused, SendProgress, SendResult, Unknown

__all__ = [
    "Acceptance",
    "BlockingProducer",
    "Confirmed",
    "PreparedSend",
    "RabbitMQProducer",
    "Refused",
    "SendProgress",
    "SendResult",
    "SendsManyAnywhere",
    "Submit",
    "Unknown",
]
