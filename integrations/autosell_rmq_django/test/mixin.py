"""The same for Django's test cases."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING

from autosell_rmq_django.test.tester import RabbitMQTester

if TYPE_CHECKING:
    Base = unittest.TestCase
else:
    Base = object


class RabbitMQTestMixin(Base):
    """Before ``TestCase``, ``TransactionTestCase`` or ``SimpleTestCase``: each test has an own ``self.rmq``.

    It is there from `setUp` on: what ``setUpTestData`` or ``setUpClass`` send goes to the broker of the
    settings.
    """

    rmq: RabbitMQTester

    def setUp(self) -> None:
        """Start it; it ends with the test, after ``tearDown``."""
        super().setUp()
        self.rmq = self.enterContext(RabbitMQTester())
