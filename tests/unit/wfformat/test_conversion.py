"""Recordings as definitions."""

from __future__ import annotations

import pytest
from hypothesis import given

from orchestration.definition import load_definition
from orchestration.definition.schema import Definition, is_name
from orchestration.errors import DefinitionError
from orchestration.plan import compile_plan
from orchestration.registry import load_actions
from parallelizer.wfformat.conversion import Replay, action_names, safe_name, to_definition
from parallelizer.wfformat.reader import read_recording
from parallelizer.wfformat.recording import RecordedTask, Recording
from parallelizer.wfformat.shape import shape_of
from tests.support.recordings import LOAVES
from tests.unit.wfformat.graphs import recordings


@pytest.fixture(autouse=True, scope="module")
def _actions() -> None:
    load_actions(())


def converted(recording: Recording, time_scale: float = 1.0, slots: int = 10) -> Definition:
    replay = Replay(time_scale, slots)
    return load_definition(to_definition(recording, shape_of(recording), replay, action_names(recording)))


def recording_of(*ids: str, seconds: float = 1.0) -> Recording:
    return Recording("r", "1.5", tuple(RecordedTask(each, seconds, ()) for each in ids), None)


def test_each_task_becomes_a_sleep_after_those_it_waits_for() -> None:
    definition = converted(read_recording(LOAVES["1.6"]), time_scale=0.5, slots=3)
    assert definition.limits.max_concurrent_branches == 3
    clean_up, weigh = definition.actions["clean-up"], definition.actions["weigh_ID0000003"]
    assert (clean_up.uses, clean_up.inputs, clean_up.needs) == ("core.sleep", {"seconds": 1.125}, ("mix_ID0000004",))
    assert (weigh.inputs, weigh.needs) == ({"seconds": 0}, ())


def test_ids_that_can_be_names_stay_and_others_get_one_that_can_be_read() -> None:
    names = action_names(read_recording(LOAVES["1.4"]))
    assert names["KITCHEN.BAKERY.KNEAD_5"] == "KITCHEN.BAKERY.KNEAD_5"
    assert names["rise #2"].startswith("rise_2-")
    assert names["bake/2"].startswith("bake_2-")
    assert max(map(len, names)) > 128
    assert all(is_name(name) for name in names.values())
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("text", ["", " ", "-", ".x", "é", "a/b", "a" * 129, "a\nb", "a:b|c;d", "${{ x }}", "日本語"])
def test_any_text_gives_a_name_and_the_same_one_each_time(text: str) -> None:
    assert is_name(safe_name(text))
    assert safe_name(text) == safe_name(text)
    assert safe_name(text) != safe_name(f"{text}/")


def test_an_id_that_looks_like_a_name_made_by_us_keeps_it() -> None:
    ours = safe_name("a/b")
    names = action_names(recording_of("a/b", ours))
    assert names[ours] == ours
    assert names["a/b"] == f"{ours}-2"


@given(recordings())
def test_the_plan_has_as_many_branches_as_the_figures_say(recording: Recording) -> None:
    plan = compile_plan(converted(recording))
    shape = shape_of(recording)
    assert len(plan.branches) == shape.branches
    seconds = {task.id: task.seconds for task in recording.tasks}
    longest = max(sum(seconds[action.name] for action in branch.actions) for branch in plan.branches.values())
    assert longest == shape.longest_branch_seconds


def test_a_branch_may_take_longer_than_it_sleeps_but_not_beyond_any_limit() -> None:
    assert converted(recording_of("a", seconds=1000)).limits.branch_timeout_seconds == 2060
    assert converted(recording_of("a", seconds=1e9), time_scale=1e-4).limits.branch_timeout_seconds == 200_060
    with pytest.raises(DefinitionError, match=r"the longest branch takes 1,000,000 s .*choose a smaller one"):
        converted(recording_of("a", seconds=1e6))


def test_nothing_is_kept_of_the_results_of_sleeps() -> None:
    plan = compile_plan(converted(recording_of("a", "b")))
    assert plan.output is not None
    assert not plan.output.references
