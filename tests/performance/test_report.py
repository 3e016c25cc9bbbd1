"""What the benchmark makes of its figures: compared, judged, told. The figures here are made up."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from tests.performance.chart import to_svg
from tests.performance.comparison import Comparison, Goal, Pair, Sample
from tests.performance.report import Measured, Report
from tests.performance.workloads import full_size, quick_size
from tests.performance.workloads.linear import Chain, OneAction
from tests.performance.workloads.small_runs import SmallRuns
from tests.performance.workloads.workload import CHORD, COUNTED

RATE = Comparison("rate", "items/s", "rate", "rate", goal=Goal(10.0))
OWN = Comparison("rate", "runs/s", "rate", "rate", goal=Goal(100.0, of="ours"))
DELAY = Comparison("delay", "ms", "rate", "rate", by="difference", goal=Goal(8.0, is_most=True))
ALONE = Comparison("memory", "MB", "rate", goal=Goal(100.0, is_most=True))


def pairs(*both: tuple[float, float]) -> list[Pair]:
    return [Pair(Sample({"rate": ours}, {}), Sample({"rate": other}, {})) for ours, other in both]


@pytest.mark.parametrize(
    ("comparison", "both", "judged", "unit", "met"),
    [
        (RATE, [(100.0, 10.0), (90.0, 10.0), (120.0, 10.0)], 10.0, "×", True),
        (RATE, [(99.0, 10.0), (90.0, 10.0), (120.0, 10.0)], 9.9, "×", False),
        (OWN, [(100.0, 1000.0)], 100.0, "runs/s", True),
        (OWN, [(99.0, 1.0)], 99.0, "runs/s", False),
        (DELAY, [(12.0, 4.0)], 8.0, "ms", True),
        (DELAY, [(13.0, 4.0)], 9.0, "ms", False),
        (ALONE, [(100.0, 0.0)], 100.0, "MB", True),
        (ALONE, [(101.0, 0.0)], 101.0, "MB", False),
    ],
)
def test_a_goal_is_for_the_median_of_what_it_is_stated_for(
    comparison: Comparison, both: list[tuple[float, float]], judged: float, unit: str, met: bool
) -> None:
    compared = comparison.of(pairs(*both))
    assert compared.judged.median == pytest.approx(judged)
    assert (compared.judged_unit, compared.met) == (unit, met)


@pytest.mark.parametrize(
    ("goal", "value", "margin"),
    [(Goal(10.0), 20.0, 2.0), (Goal(10.0), 5.0, 0.5), (Goal(8.0, is_most=True), 4.0, 2.0),
     (Goal(8.0, is_most=True), 16.0, 0.5), (Goal(8.0, is_most=True), -1.0, 1000.0)],
)  # fmt: skip
def test_a_margin_is_more_than_one_on_the_good_side(goal: Goal, value: float, margin: float) -> None:
    assert goal.margin(value) == pytest.approx(margin)


def made_up_report(*, quick: bool) -> Report:
    chain = Pair(Sample({"to_results": 2000.0, "to_rows": 1900.0}, {}), Sample({"to_result": 100.0}, {}))
    one = Pair(Sample({"p50": 15.0, "p99": 20.0}, {}), Sample({"p50": 4.0, "p99": 5.0}, {}))
    small = Pair(Sample({"to_results": 300.0, "to_rows": 99.0}, {}), Sample({"to_results": 60.0}, {}))
    measured = [
        Measured(Chain(1000, 200), [chain], 0.1),
        Measured(OneAction(200), [one], 0.2),
        Measured(SmallRuns(400), [small], 0.3),
    ]
    return Report(datetime(2026, 1, 2, tzinfo=UTC), 60.0, quick, {"cores": 2}, measured)


def test_each_missed_goal_is_a_sentence_and_a_word_in_the_table_and_in_the_picture() -> None:
    report = made_up_report(quick=False)
    assert report.missed() == [
        "chain, until all rows are in PostgreSQL: 19.0 ×; the goal is ≥ 20 ×",
        "one-action, p50: 11.0 ms; the goal is ≤ 8 ms",
        "small-runs, until all rows are in PostgreSQL: 99.0 runs/s; the goal is ≥ 100 runs/s",
    ]
    printed = io.StringIO()
    report.print_table(Console(width=200, file=printed))
    table = printed.getvalue()
    assert table.count("MISSED") == 3
    assert "other programs used 10 % to 30 %" in table
    texts = [element.text or "" for element in ET.fromstring(to_svg(report)).iter() if element.text]
    assert [text for text in texts if text.endswith("missed")] == [
        "19.0 × (≥ 20 ×), missed",
        "11.0 ms (≤ 8 ms), missed",
        "99.0 runs/s (≥ 100 runs/s), missed",
    ]


def test_nothing_is_judged_in_small_sizes() -> None:
    report = made_up_report(quick=True)
    assert report.missed() == []
    assert report.to_json()["goals_met"] is None
    assert ", missed" not in to_svg(report)


def test_the_small_sizes_are_the_same_workloads() -> None:
    assert sorted(each.name for each in quick_size()) == sorted(each.name for each in full_size((COUNTED,)))


def test_a_second_dispatcher_has_rows_of_its_own_without_goals() -> None:
    alone, both = full_size((COUNTED,)), full_size((COUNTED, CHORD))
    assert [each.name for each in full_size()] == [each.name for each in both], "both are shown"
    names = [each.name for each in both]
    assert len(set(names)) == len(names)
    added = [each for each in both if each.name not in {one.name for one in alone}]
    assert {each.name for each in added} >= {"fan-out-chord", "small-runs-forked-chord", "wait-40-threads-chord"}
    assert all(comparison.goal is None for each in added for comparison in each.comparisons)
