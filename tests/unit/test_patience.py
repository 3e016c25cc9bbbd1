"""Who waits for a service that is away, for how long, and what becomes of what is in hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestration.state.patience import Patience


def failing(times: int, error: type[Exception] = ConnectionError) -> Callable[[], int]:
    """A call that succeeds after so many failures; returns how often it was called."""
    calls = 0

    def call() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error(str(calls))
        return calls

    return call


def patience(repeats: int = 3, goes_on: Callable[[], bool] | None = None) -> Patience:
    return Patience(lambda error: isinstance(error, ConnectionError), repeats, 0.0001, goes_on)


def test_a_cut_connection_is_made_anew_without_a_wait() -> None:
    assert Patience(lambda _: True, 1, first_wait_seconds=60).run(failing(1)) == 2


def test_after_its_repetitions_an_impatient_caller_gets_the_last_error() -> None:
    assert patience(3).run(failing(4)) == 5
    with pytest.raises(ConnectionError, match="5"):
        patience(3).run(failing(99))


def test_an_error_that_no_wait_mends_is_raised_at_once() -> None:
    with pytest.raises(ValueError, match="1"):
        patience(goes_on=lambda: True).run(failing(99, ValueError))


def test_what_is_in_hand_is_kept_once_and_only_when_the_repetitions_were_in_vain() -> None:
    kept: list[str] = []
    worker = patience(3, lambda: True)
    assert worker.run(failing(4), lambda: kept.append("early")) == 5
    assert kept == []
    assert worker.run(failing(50), lambda: kept.append("kept")) == 51
    assert kept == ["kept"]


def test_a_worker_that_is_told_to_stop_makes_its_repetitions_keeps_what_it_has_and_leaves() -> None:
    kept: list[str] = []
    assert patience(3, lambda: False).run(failing(4), lambda: kept.append("early")) == 5
    with pytest.raises(ConnectionError, match="5"):
        patience(3, lambda: False).run(failing(99), lambda: kept.append("kept"))
    assert kept == ["kept"]


def test_a_worker_goes_on_until_it_is_told_to_stop() -> None:
    told = iter([True] * 20 + [False])
    with pytest.raises(ConnectionError, match="25"):
        patience(3, lambda: next(told)).run(failing(99))
