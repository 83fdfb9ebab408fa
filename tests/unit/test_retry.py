"""The retry policy and the hops of the delay line, as pure functions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosell_rmq import ConfigError, RetryLater
from autosell_rmq.retry import RetryPolicy
from autosell_rmq.topology import DUE_TOLERANCE, LONGEST_HOP, next_hop

POLICY = RetryPolicy(max_retries=4, delay=1, max_delay=5)


def test_the_delay_doubles_to_the_cap_and_ends() -> None:
    delays = [POLICY.next_delay(attempt, ValueError()) for attempt in range(1, 6)]
    assert delays == [1, 2, 4, 5, None]


def test_no_retries_at_all() -> None:
    assert RetryPolicy(max_retries=0, delay=1, max_delay=5).next_delay(1, ValueError()) is None


def test_retry_later_names_its_own_delay_within_the_same_count() -> None:
    assert POLICY.next_delay(1, RetryLater(delay=3600)) == 3600
    assert POLICY.next_delay(1, RetryLater(delay=0)) == 0
    assert POLICY.next_delay(2, RetryLater()) == 2
    assert POLICY.next_delay(5, RetryLater(delay=1)) is None


@pytest.mark.parametrize("delay", [-1, -0.001, math.nan])
def test_retry_later_refuses_a_negative_delay(delay: float) -> None:
    with pytest.raises(ConfigError, match="delay="):
        RetryLater(delay=delay)


def test_a_huge_count_does_not_overflow() -> None:
    policy = RetryPolicy(max_retries=10**9, delay=1, max_delay=60)
    assert policy.next_delay(10**8, ValueError()) == 60


@given(st.floats(0, 1e9))
def test_a_hop_is_a_power_of_two_that_does_not_overshoot(remaining: float) -> None:
    hop = next_hop(remaining)
    assert hop & (hop - 1) == 0
    assert 1 <= hop <= LONGEST_HOP
    assert hop <= max(remaining + 1, 1)


@given(st.floats(0, 40 * 86400))
def test_the_hops_end_at_the_due_time_and_less_than_a_second_later(delay: float) -> None:
    passed, hops = 0.0, 0
    while delay - passed > DUE_TOLERANCE:
        passed += next_hop(delay - passed)
        hops += 1
    assert passed >= delay - DUE_TOLERANCE
    assert passed < delay + 1
    assert hops <= 24
