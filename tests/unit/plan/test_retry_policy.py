"""Waits grow, are bounded and jittered; which errors are tried again follows their classes."""

from __future__ import annotations

import pytest

from orchestration.plan import RetryPolicy


def test_waits_double_up_to_the_longest() -> None:
    policy = RetryPolicy(max_attempts=9, delay_ms=100, backoff=2.0, max_delay_ms=1000, jitter=0.0)
    assert [policy.delay_before(attempt) for attempt in range(2, 8)] == [100, 200, 400, 800, 1000, 1000]


def test_jitter_stays_within_its_share() -> None:
    policy = RetryPolicy(max_attempts=9, delay_ms=1000, jitter=0.1)
    waits = {policy.delay_before(2) for _ in range(200)}
    assert min(waits) >= 900
    assert max(waits) <= 1100
    assert len(waits) > 10


def test_a_wait_after_thousands_of_attempts_is_still_the_longest() -> None:
    assert RetryPolicy(max_attempts=5000, delay_ms=100, backoff=100.0, jitter=0.0).delay_before(4000) == 60_000


@pytest.mark.parametrize(
    ("retry_on", "never_on", "error", "allowed"),
    [
        ((), (), ValueError(), True),
        ((), (), KeyboardInterrupt(), False),
        (("OSError",), (), ConnectionRefusedError(), True),
        (("OSError",), (), ValueError(), False),
        (("builtins.OSError",), (), OSError(), True),
        ((), ("ConnectionError",), ConnectionRefusedError(), False),
        (("OSError",), ("ConnectionError",), ConnectionRefusedError(), False),
    ],
)
def test_errors_are_told_apart_by_class(
    retry_on: tuple[str, ...], never_on: tuple[str, ...], error: BaseException, allowed: bool
) -> None:
    policy = RetryPolicy(max_attempts=2, retry_on=retry_on, never_on=never_on)
    assert policy.allows(1, error) is allowed
    assert policy.allows(2, error) is False
