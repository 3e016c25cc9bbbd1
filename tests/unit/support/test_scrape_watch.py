"""What the watch over metrics lets pass, and what it finds."""

from __future__ import annotations

from collections import Counter

import pytest

from orchestration.telemetry.metrics import PREFIX, Source
from tests.support.scrape_watch import ScrapeWatch, disagreements
from tests.support.scrapes import Scrape


def told(*values: tuple[str, dict[str, str], float]) -> Scrape:
    return Scrape({(PREFIX + name, frozenset(labels.items())): value for name, labels, value in values})


RUNS = {"workflow": "w", "status": "failed"}
TASKS = {"workflow": "w", "action": "a", "status": "failed"}
WHOLE = [
    ("workflows_total", RUNS, 2), ("workflow_branches_count", {"workflow": "w"}, 2), ("tasks_total", TASKS, 3),
    ("tasks_undone_total", TASKS, 1), ("failures_total", {"error": "E"}, 3),
    ("task_duration_seconds_count", {"workflow": "w", "action": "a"}, 3), ("dead_letters", {}, 0),
]  # fmt: skip


def test_an_answer_that_is_of_one_moment_agrees_with_itself() -> None:
    assert list(disagreements(told(*WHOLE))) == []
    assert list(disagreements(told(("worker_slots", {}, 2)))) == []


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("workflow_branches_count", {"workflow": "w"}, 1), ("tasks_undone_total", TASKS, 4),
        ("failures_total", {"error": "E"}, 4), ("task_duration_seconds_count", {"workflow": "w", "action": "a"}, 4),
        ("branch_wait_seconds_count", {"workflow": "w"}, 1),
    ],
)  # fmt: skip
def test_an_answer_of_two_moments_does_not(name: str, labels: dict[str, str], value: float) -> None:
    assert len(list(disagreements(told(*WHOLE, (name, labels, value))))) == 1


@pytest.mark.parametrize(
    ("source", "name", "labels", "falls_anew"),
    [
        (Source.RECORD, "tasks_total", TASKS, True),
        (Source.LIVE, "repairs_total", {"cause": "lost"}, True),
        (Source.WORKER, "busy_seconds_total", {}, False),
        (None, "slots", {"queue": "q"}, False),
    ],
)
def test_a_counter_goes_back_only_with_the_memory_that_it_is_in(
    source: Source | None, name: str, labels: dict[str, str], falls_anew: bool
) -> None:
    watch = ScrapeWatch()
    watch.look("0", "worker-1", 1.0, told((name, labels, 5)))
    watch.look("0", "worker-1", 2.0, told())  # what it is read from was away
    watch.look("0", "worker-1", 3.0, told((name, labels, 5)))
    assert watch.falls == []
    watch.look("0", "worker-2", 4.0, told((name, labels, 4)))
    assert [(fall.source, fall.since, fall.until) for fall in watch.falls] == [(source, 3.0, 4.0)] * falls_anew
    watch.look("0", "worker-2", 5.0, told((name, labels, 3)))
    assert len(watch.falls) == (2 if falls_anew else 0 if source is None else 1)


def test_runs_are_those_between_two_looks_at_the_record() -> None:
    for seen, before, after, is_wrong in ((2, 1, 2, False), (2, 3, 4, True), (2, 0, 1, True)):
        watch = ScrapeWatch()
        answer = told(("dead_letters", {}, 0), ("workflows_total", RUNS, seen))
        watch.compare_runs("worker-1", answer, Counter({("w", "failed"): before}), Counter({("w", "failed"): after}))
        assert bool(watch.wrong) is is_wrong
