"""The fixture for pytest, with pytest-django: a plugin, ``-p no:autosell_rmq_django`` keeps it out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from autosell_rmq_django.test.tester import RabbitMQTester


def pytest_configure(config: pytest.Config) -> None:
    """Add the fixture where pytest-django is: other projects have the name to themselves."""
    if config.pluginmanager.hasplugin("django"):
        config.pluginmanager.register(_Fixtures(), "autosell_rmq_django.fixtures")


class _Fixtures:
    @pytest.fixture
    def rmq(self, db: None) -> Iterator[RabbitMQTester]:
        """The project on a broker in memory, for one test; see `RabbitMQTester`.

        The test has its database with it. ``@pytest.mark.django_db(transaction=True)`` works as usual.
        """
        # Imported here: pytest imports the plugin before Django is set up, and where there is no Django.
        from autosell_rmq_django.test.tester import RabbitMQTester

        with RabbitMQTester() as tester:
            yield tester
