"""The picture of a run, what changes of it, its pages and its density: from rows as the status channel writes them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestration.errors import UnknownRun
from orchestration.reports import picture
from orchestration.state.live import LiveState
from orchestration.state.records import ItemProgress, LiveSnapshot
from orchestration.store import pictures, sessions, task_logs, updates
from orchestration.store.pictures import STATUSES, Choice
from orchestration.store.pool import Database
from orchestration.store.results import put_result, stored_mark
from orchestration.store.sessions import SessionRow
from orchestration.store.updates import BranchUpdate
from orchestration.telemetry.task_logs import TaskLogLine
from orchestration.vocabulary import TaskStatus
from tests.integration.store.rows import new_session, task
from tests.support.seeded_runs import PLAIN, seed_run

ITEMS = 50_000
ACTIONS: dict[str, object] = {
    "first": {"uses": "core.noop"},
    "each": {"uses": "core.noop", "needs": ["first"], "for_each": {"range": 1000}, "with": {"x": "${{ item }}"}},
    "last": {"uses": "core.noop", "needs": ["each"]},
}


class Moment(LiveState):
    """The live state of a run at one moment, or that it has none."""

    def __init__(self, value: LiveSnapshot | None = None) -> None:
        super().__init__(LIVE["url"], "pictures")
        self._value = value

    def snapshot(self, flow_session_id: str) -> LiveSnapshot | None:
        assert flow_session_id
        return self._value


#: Where live state is that has nothing of these runs.
LIVE: dict[str, str] = {}


@pytest.fixture(scope="module", autouse=True)
def nothing_live(redis_url: str) -> None:
    LIVE["url"] = redis_url


@pytest.fixture(scope="module")
def seeded(database: Database) -> str:
    return seed_run(database, ITEMS)


@pytest.fixture
def run(database: Database) -> SessionRow:
    return new_session(database, "pictures", ACTIONS)


def micros(moment: datetime) -> int:
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def write(database: Database, run: SessionRow, action: str, item: int = -1, **values: Any) -> None:
    """A row of the run, by default one that took 5 ms from 1 s after its beginning on."""
    start = micros(run.created_at) + 1_000_000
    values = {"started_us": start, "finished_us": start + 5_000, "day": str(run.session_day), **values}
    updates.write_rows(database, [task(run.flow_session_id, action, item, **values)])


def test_a_picture_has_every_task_of_a_large_run_in_a_moment(database: Database, seeded: str) -> None:
    started = time.perf_counter()
    found = picture.picture(database, Moment(), seeded)
    # Some 0.2 s on a quiet machine.
    assert time.perf_counter() - started < 5
    columns = found["columns"]
    assert found["total"] == len(columns["item"]) == ITEMS + len(PLAIN) + 3
    assert found["run"]["status"] == "succeeded"
    names = [action["name"] for action in found["graph"]["actions"]]
    ship = names.index("ship")
    failed = columns["status"].count(STATUSES.index(TaskStatus.FAILED))
    assert failed == found["run"]["counts"]["failed"]
    # 5 slots in each of two workers
    assert found["lanes"] == [0] * 5 + [1] * 5
    assert found["unit_us"] == 1000
    assert found["ready_us"][str(names.index("fetch"))] == 10_000
    assert found["progress"][ship][1] == ITEMS


def test_a_picture_agrees_with_the_rows(database: Database, run: SessionRow) -> None:
    write(database, run, "first")
    write(database, run, "each", 7, status="failed", attempt=3, error='{"type": "E", "message": "m"}')
    start = micros(run.created_at) + 1_000_000
    branch = BranchUpdate(
        str(run.session_day), run.flow_session_id, "first", "succeeded", 1, 100_005, "branches", "worker@here", start,
        start + 5_000, 250_000,
    )  # fmt: skip
    updates.write_rows(database, [], [branch])
    found = picture.picture(database, Moment(), run.flow_session_id)
    columns = found["columns"]
    assert columns["action"] == [0, 1, 1, 2]
    assert columns["item"] == [-1, -1, 7, -1]
    assert [STATUSES[code] for code in columns["status"]] == ["succeeded", "pending", "failed", "pending"]
    assert columns["attempt"] == [1, 0, 3, 0]
    assert columns["start"] == [1_000_000, None, 1_000_000, None]
    assert columns["end"] == [1_005_000, None, 1_005_000, None]
    assert found["unit_us"] == 1
    assert found["ready_us"] == {"0": 750_000}
    assert found["run"]["payload"] == '{"a": 1}'


def test_changes_are_told_once_and_lead_to_the_present(database: Database, run: SessionRow) -> None:
    mark = picture.picture(database, Moment(), run.flow_session_id)["mark"]
    assert picture.changes(database, Moment(), run.flow_session_id, mark)["rows"] == []
    write(database, run, "first", status="running", sequence=100_001, finished_us=None)
    found = picture.changes(database, Moment(), run.flow_session_id, mark)
    assert found["rows"] == [[0, -1, STATUSES.index(TaskStatus.RUNNING), 1, "worker@here", 1_000_000, None]]
    assert picture.changes(database, Moment(), run.flow_session_id, found["mark"])["rows"] == []
    write(database, run, "first")
    then = picture.changes(database, Moment(), run.flow_session_id, found["mark"])
    assert [row[2] for row in then["rows"]] == [STATUSES.index(TaskStatus.SUCCEEDED)]


def test_what_is_committed_late_is_told_though_it_is_older_than_the_mark(database: Database, run: SessionRow) -> None:
    with database.transaction() as slow:
        slow.execute(
            "INSERT INTO tasks (session_day, flow_session_id, action, item, status, attempt, sequence, started_at)"
            " VALUES (%s, %s, 'each', 3, 'running', 1, 1, now() - interval '1 hour')",
            (run.session_day, run.flow_session_id),
        )
        write(database, run, "first")
        found = picture.changes(database, Moment(), run.flow_session_id, pictures.mark_now(database))
        assert found["rows"] == []
    later = picture.changes(database, Moment(), run.flow_session_id, found["mark"])
    assert [row[:2] for row in later["rows"]] == [[1, 3]]


def test_transactions_that_are_under_way_hide_no_change(database: Database, run: SessionRow) -> None:
    mark = pictures.mark_now(database)
    write(database, run, "first")
    with ExitStack() as others:
        for _ in range(3):
            others.enter_context(database.transaction()).execute("SELECT pg_current_xact_id()")
        found = picture.changes(database, Moment(), run.flow_session_id, mark)
    assert [row[0] for row in found["rows"]] == [0]


@pytest.mark.parametrize("mark", ["1:1:", f"{10**18 - 1}:{10**18 - 1}:", "3:9:3,5,8"])
def test_any_mark_may_come_from_outside(database: Database, run: SessionRow, mark: str) -> None:
    picture.changes(database, Moment(), run.flow_session_id, mark)


def test_too_many_changes_are_told_by_no_rows(database: Database, run: SessionRow) -> None:
    mark = pictures.mark_now(database)
    rows = [
        task(run.flow_session_id, "each", item, day=str(run.session_day)) for item in range(picture.MOST_CHANGES + 1)
    ]
    updates.write_rows(database, rows)
    assert picture.changes(database, Moment(), run.flow_session_id, mark)["rows"] is None


@pytest.mark.parametrize(
    "mark",
    ["", "1:2", "1:2:3;", "1:2:x", "1:2:3'; SELECT 1", "9" * 21 + ":1:", "0:0:", "5:3:", "1:9:4,2", "1:9:9", "5:9:4"],
)
def test_a_text_that_is_no_mark_is_refused(database: Database, run: SessionRow, mark: str) -> None:
    with pytest.raises(ValueError, match="mark"):
        picture.changes(database, Moment(), run.flow_session_id, mark)


@pytest.mark.parametrize(
    "choice", [Choice(), Choice(slowest=True), Choice((TaskStatus.FAILED,)), Choice(action="ship")]
)
def test_pages_have_every_chosen_task_once(database: Database, seeded: str, choice: Choice) -> None:
    limit = 3_000 if choice.statuses is None else 10
    rows, after = [], None
    while True:
        page = picture.page(database, seeded, choice, after, limit)
        rows += page["rows"]
        after = page["next"]
        if after is None:
            break
        assert len(page["rows"]) == limit
    keys = [(row[0], row[1]) for row in rows]
    assert len(keys) == len(set(keys))
    if choice.statuses is None:
        assert len(keys) == ITEMS + (1 if choice.action else len(PLAIN) + 3)
    else:
        assert {row[2] for row in rows} == {STATUSES.index(TaskStatus.FAILED)}
    if choice.slowest:
        lasted = [row[6] - row[5] for row in rows]
        assert lasted == sorted(lasted, reverse=True)


def test_a_density_has_every_failure_and_as_many_at_once_as_slots(database: Database, seeded: str) -> None:
    whole = picture.picture(database, Moment(), seeded)
    length = (whole["run"]["finished_at"] - whole["origin"]) * 1000
    found = picture.density(database, seeded, 0, length, 200)
    ship = str([action["name"] for action in whole["graph"]["actions"]].index("ship"))
    # The row of the for_each itself lasts as long as its items, and is not counted.
    assert 8 < max(found["actions"][ship]["running"]) <= 10
    assert sum(found["actions"][ship]["failed"]) == whole["progress"][int(ship)][3]


@pytest.mark.parametrize("window", [(0, 0, 10), (5, 4, 10), (0, 10, 0), (0, 10, picture.MOST_BINS + 1)])
def test_a_window_that_is_none_is_refused(database: Database, seeded: str, window: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="bins"):
        picture.density(database, seeded, *window)


def test_above_the_bound_there_are_no_columns(
    database: Database, run: SessionRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "MOST_COLUMNS", 2)
    write(database, run, "each", 0)
    write(database, run, "each", 1)
    assert picture.picture(database, Moment(), run.flow_session_id)["columns"] is not None
    write(database, run, "each", 2)
    assert picture.picture(database, Moment(), run.flow_session_id)["columns"] is None


def test_a_task_has_its_result_error_and_definition(database: Database, run: SessionRow) -> None:
    write(database, run, "each", 1, result='{"big": [1, 2]}', attempt=2)
    found = picture.task(database, run.flow_session_id, "each", 1)
    assert (found["status"], found["attempt"], found["result"], found["ran_us"]) == (
        "succeeded",
        2,
        '{"big": [1, 2]}',
        5_000,
    )
    assert found["definition"]["with"] == {"x": "${{ item }}"}
    write(database, run, "first", status="failed", error='{"type": "E", "message": "<b>"}')
    assert picture.task(database, run.flow_session_id, "first", -1)["error"] == {"type": "E", "message": "<b>"}
    assert picture.task(database, run.flow_session_id, "last", -1)["status"] == "pending"


def test_a_task_has_the_first_of_the_lines_that_it_logged(
    database: Database, run: SessionRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, us = str(run.session_day), 1_790_000_000_000_000
    task_logs.write_task_logs(
        database,
        [
            TaskLogLine(day, run.flow_session_id, "each", item, 2, us + 1000 * number, "info", "shop", text, fields)
            for number, (item, text, fields) in enumerate(
                [(1, "sold", '{"sku": 7}'), (0, "of another", None), (1, "<b>sold</b>", None)]
            )
        ],
    )
    write(database, run, "each", 1)
    sold = {"at": us // 1000, "attempt": 2, "level": "info", "message": "sold", "fields": {"sku": 7}}
    found = picture.task(database, run.flow_session_id, "each", 1)
    assert found["logs"] == [sold, {**sold, "at": us // 1000 + 2, "message": "<b>sold</b>", "fields": None}]
    assert not found["more_logs"]
    monkeypatch.setattr(picture, "MOST_LOG_LINES", 1)
    found = picture.task(database, run.flow_session_id, "each", 1)
    assert (found["logs"], found["more_logs"]) == ([sold], True)


def test_a_picture_names_the_trace_of_its_run(database: Database, run: SessionRow) -> None:
    assert picture.picture(database, Moment(), run.flow_session_id)["run"]["trace_id"] is None
    database.execute(
        "UPDATE flow_sessions SET traceparent = %s WHERE flow_session_id = %s",
        (f"00-{7:032x}-{8:016x}-01", run.flow_session_id),
    )
    assert picture.picture(database, Moment(), run.flow_session_id)["run"]["trace_id"] == f"{7:032x}"


def test_of_a_large_result_the_beginning_is_shown(database: Database, run: SessionRow) -> None:
    content = ('"' + "ü" * 100_000 + '"').encode()
    put_result(database, run.flow_session_id, run.session_day, "first", -1, content)
    write(database, run, "first", result=stored_mark(len(content)))
    found = picture.task(database, run.flow_session_id, "first", -1)
    assert found["result_bytes"] == len(content)
    assert found["result"].startswith('"üüü')
    assert len(found["result"]) < picture.MOST_TEXT


def test_a_run_or_an_action_that_is_not_there_is_named(database: Database, run: SessionRow) -> None:
    with pytest.raises(UnknownRun, match="nobody"):
        picture.picture(database, Moment(), "nobody")
    with pytest.raises(UnknownRun, match="nobody"):
        picture.changes(database, Moment(), "nobody", "1:1:")
    with pytest.raises(UnknownRun, match="no action 'other'"):
        picture.task(database, run.flow_session_id, "other", -1)


def test_the_permits_of_a_run_that_is_under_way_come_from_live_state(database: Database, run: SessionRow) -> None:
    items = {"each": ItemProgress(9, 5, 4, 1, {"succeeded": 3, "failed": 1, "total": 0})}
    live = Moment(LiveSnapshot("running", 10, 7, (), 4, 2, 3, {"succeeded": 5}, items))
    found = picture.picture(database, live, run.flow_session_id)["run"]
    assert (found["limit"], found["in_use"], found["ready"], found["deferred"]) == (10, 7, 4, 2)
    assert found["counts"] == {"succeeded": 8, "failed": 1}


def test_a_session_that_has_ended_says_so(database: Database, run: SessionRow) -> None:
    sessions.finish_session(
        database, run.flow_session_id, run.session_day, "failed", None, '{"type": "E", "message": "x"}', {}
    )
    found = picture.picture(database, Moment(), run.flow_session_id)["run"]
    assert (found["status"], found["error"]) == ("failed", {"type": "E", "message": "x"})
    assert found["finished_at"] is not None
