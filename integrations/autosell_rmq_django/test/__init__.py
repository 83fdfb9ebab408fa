"""For tests of a project: its handlers run for real, on a broker in memory, inside the test's transaction.

::

    class OrderTests(RabbitMQTestMixin, TestCase):
        def test_an_order_is_created(self):
            reply = self.rmq.deliver("orders", {"item": "lamp"})

            self.assertEqual(reply["data"], {"number": Order.objects.get().pk})
            self.assertEqual([event.routing_key for event in self.rmq.sent], ["order.created"])

With pytest the fixture `rmq` is the same.

The names are imported when they are first used: pytest imports this package before Django is set up.
"""

import importlib as _importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autosell_rmq.testing import DeadLetter, Failure, SentMessage
    from autosell_rmq_django.test.mixin import RabbitMQTestMixin
    from autosell_rmq_django.test.tester import RabbitMQTester

__all__ = ["DeadLetter", "Failure", "RabbitMQTestMixin", "RabbitMQTester", "SentMessage"]

_HOMES = {
    "DeadLetter": "autosell_rmq.testing",
    "Failure": "autosell_rmq.testing",
    "RabbitMQTestMixin": "autosell_rmq_django.test.mixin",
    "RabbitMQTester": "autosell_rmq_django.test.tester",
    "SentMessage": "autosell_rmq.testing",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
