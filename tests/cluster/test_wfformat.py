"""Recorded executions repeated on real workers, through the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import parallelizer
from tests.support.fleet import Fleet
from tests.support.recordings import LOAVES, LOAVES_EDGES, LOAVES_TASKS, loaves
from tests.support.records import Records

#: What the clocks of sleeps and the rounding of recorded times may take off a makespan, seconds.
CLOCK_SECONDS = 0.001


@pytest.fixture(scope="module")
def fleet_of_two(module_fleet: Fleet) -> Fleet:
    """A worker whose places are fewer than the slots that the tests ask for."""
    module_fleet.start(1, concurrency=2)
    return module_fleet


def repeated(fleet: Fleet, path: Path, *options: str, expected: int = 0) -> Any:
    """What `run --wfformat --json` prints."""
    done = parallelizer("run", "--wfformat", str(path), *options, "--json", folder=None, **fleet.settings)
    assert done.returncode == expected, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("version", LOAVES)
def test_a_recording_runs_as_fast_as_its_places_allow_and_in_its_order(version: str, fleet_of_two: Fleet) -> None:
    result = repeated(fleet_of_two, LOAVES[version], "--time-scale", "0.02", "--slots", "3")
    assert (result["status"], result["counts"]) == ("succeeded", {"succeeded": LOAVES_TASKS})
    compared = result["comparison"]
    assert set(compared) == {
        "tasks", "edges", "slots", "time_scale", "makespan_seconds", "bound_seconds", "makespan_to_bound",
        "first_come_first_served_seconds", "makespan_to_first_come_first_served", "most_at_once", "unrecorded",
        "violations", "violated_edges",
    }  # fmt: skip
    assert (compared["tasks"], compared["edges"], compared["slots"]) == (LOAVES_TASKS, LOAVES_EDGES, 3)
    assert (compared["unrecorded"], compared["violations"], compared["violated_edges"]) == (0, 0, [])
    assert compared["bound_seconds"] == pytest.approx(25.5 * 0.02)
    assert compared["first_come_first_served_seconds"] == pytest.approx(25.5 * 0.02)
    assert compared["makespan_seconds"] >= compared["bound_seconds"] - CLOCK_SECONDS
    assert 1 <= compared["most_at_once"] <= 3
    assert compared["makespan_to_bound"] == pytest.approx(compared["makespan_seconds"] / 0.51, abs=1e-4)


def test_what_is_in_postgresql_is_the_recording(fleet_of_two: Fleet) -> None:
    result = repeated(fleet_of_two, LOAVES["1.5"], "--time-scale", "0.01")
    rows = Records(fleet_of_two).tasks(result["flow_session_id"], LOAVES_TASKS)
    for task in loaves()["workflow"]["specification"]["tasks"]:
        row = rows[result["renamed"].get(task["id"], task["id"]), -1]
        assert row.started_at is not None
        for parent in task["parents"]:
            before = rows[result["renamed"].get(parent, parent), -1].finished_at
            assert before is not None
            assert before <= row.started_at
    for run in loaves()["workflow"]["execution"]["tasks"]:
        row = rows[result["renamed"].get(run["id"], run["id"]), -1]
        assert row.started_at is not None
        assert row.finished_at is not None
        assert (row.finished_at - row.started_at).total_seconds() >= run["runtimeInSeconds"] * 0.01 - CLOCK_SECONDS


def test_a_target_chooses_the_time_scale_and_people_read_a_table(fleet_of_two: Fleet) -> None:
    arguments = ("run", "--wfformat", str(LOAVES["1.4"]), "--target-seconds", "0.255", "--slots", "4")
    done = parallelizer(*arguments, folder=None, **fleet_of_two.settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "three loaves: 13 tasks, 14 edges, 4 slots, 1 s as 0.01 s: about 0.26 s" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["bound", "0.255", "s"] in [line[:3] for line in lines]
    assert ["first", "come,", "first", "served", "0.255", "s"] in [line[:6] for line in lines]
    assert "all 14 edges were respected" in done.stdout


@contextmanager
def starts_recorded_too_early(fleet: Fleet, action: str) -> Iterator[None]:
    """In the block PostgreSQL writes down that this action started an hour before it did."""
    records = Records(fleet)
    records.change(
        "CREATE FUNCTION too_early() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.started_at := NEW.started_at - interval '1 hour'; RETURN NEW; END $$;"
        " CREATE TRIGGER too_early BEFORE INSERT OR UPDATE ON tasks FOR EACH ROW"
        f" WHEN (NEW.action = '{action}') EXECUTE FUNCTION too_early()"
    )
    try:
        yield
    finally:
        records.change("DROP TRIGGER too_early ON tasks; DROP FUNCTION too_early")


def test_a_task_that_started_before_what_it_waits_for_had_ended_is_told_and_exits_1(fleet_of_two: Fleet) -> None:
    options = ("--time-scale", "0.001")
    with starts_recorded_too_early(fleet_of_two, "clean-up"):
        result = repeated(fleet_of_two, LOAVES["1.5"], *options, expected=1)
        done = parallelizer("run", "--wfformat", str(LOAVES["1.5"]), *options, folder=None, **fleet_of_two.settings)
    assert result["status"] == "succeeded"
    assert result["comparison"]["violations"] == 1
    violated = result["comparison"]["violated_edges"][0]
    assert (violated["before"], violated["after"]) == ("mix_ID0000004", "clean-up")
    assert violated["seconds"] == pytest.approx(3600, abs=60)
    assert done.returncode == 1
    assert "1 of 14 edges violated" in done.stdout
    assert "✘ clean-up started" in done.stdout
