"""The built-in `core.*` actions."""

from __future__ import annotations

import asyncio

import pytest

from orchestration.registry import find_action, load_actions
from parallelizer.actions import core


def test_every_core_action_is_found_through_its_entry_point() -> None:
    load_actions(())
    for name in ("core.noop", "core.echo", "core.sleep", "core.fail"):
        assert find_action(name).summary


def test_noop_takes_any_input_and_returns_nothing() -> None:
    assert core.noop(anything=1, at=[2]) is None


def test_echo_returns_its_value_unchanged() -> None:
    value = {"a": [1, 2.5, None, "é"]}
    assert core.echo(value) is value
    assert core.echo() is None


def test_sleep_refuses_a_negative_time() -> None:
    asyncio.run(core.sleep(0))
    with pytest.raises(ValueError, match="negative"):
        asyncio.run(core.sleep(-1))


@pytest.mark.parametrize(
    ("error_type", "expected"),
    [("ConnectionError", ConnectionError), ("Flaky", core.DeliberateFailure), ("not a name", core.DeliberateFailure)],
)
def test_fail_raises_what_it_is_told_to(error_type: str, expected: type[Exception]) -> None:
    with pytest.raises(expected, match=r"^no$") as caught:
        core.fail("no", error_type)
    if error_type.isidentifier():
        assert type(caught.value).__name__ == error_type


@pytest.mark.parametrize("error_type", ["SystemExit", "UnicodeDecodeError", "print"])
def test_fail_never_raises_more_than_an_ordinary_error(error_type: str) -> None:
    with pytest.raises(core.DeliberateFailure):
        core.fail("no", error_type)
