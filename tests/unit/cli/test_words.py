"""How figures and texts are shown to people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestration.vocabulary import RunStatus, TaskStatus
from parallelizer.cli.words import SIGNS, between, one_line, seconds_in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.000 s"), (0.0123, "0.012 s"), (1.5, "1.50 s"), (59.94, "59.9 s"), (61.7, "1:01"), (3723, "1:02:03")],
)
def test_durations_are_as_exact_as_they_are_short(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words


def test_the_time_between_two_moments_is_never_negative() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert between(moment, moment + timedelta(seconds=2)) == "2.00 s"
    assert between(moment, moment - timedelta(seconds=2)) == "0.000 s"
    assert between(None, moment) == between(moment, None) == ""


def test_text_from_a_run_can_not_take_over_the_terminal() -> None:
    assert one_line("a\nb\x1b[31mc\r") == "a b [31mc"
    assert one_line("x" * 500, most=10) == "xxxxxxxxx…"


def test_every_status_has_a_sign() -> None:
    assert {*RunStatus, *TaskStatus} <= set(SIGNS)
