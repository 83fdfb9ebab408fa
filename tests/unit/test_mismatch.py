"""What is said of an entity of the delay line that an earlier version has made."""

import pytest

from autosell_rmq.brokers.rabbitmq.mismatch import mismatch

TEXT = (
    "PRECONDITION_FAILED - inequivalent arg 'x-dead-letter-exchange' for queue 'autosell.delay.4s' in vhost"
    " '/': received 'autosell.home' but current is ''"
)


@pytest.mark.parametrize("name", ["autosell.delay.4s", "autosell.home", "autosell.homeless"])
def test_an_entity_of_the_delay_line_is_to_be_deleted_once_it_is_empty(name: str) -> None:
    said = mismatch(name, TEXT)
    assert said.startswith(f"'{name}' was made by an earlier version: {TEXT}. Delete it once it")
    assert "declare=False" not in said


def test_any_other_queue_may_be_declared_as_it_is() -> None:
    assert "declare it as it is" in mismatch("autosell.delays", TEXT)
