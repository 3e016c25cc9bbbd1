"""Entries of the status stream become rows; what can't be read becomes dead letters, and nothing raises."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.channel.parse import ParsedEntry, parse_entry
from orchestration.store.updates import BranchUpdate, SessionUpdate, TaskUpdate

TIME_US = 1_790_000_000_123_457
DAY = "2026-11-24"


def _entry(*rows: list[Any], **changed: bytes | None) -> list[tuple[bytes, bytes]]:
    fields: dict[str, bytes | None] = {"s": b"run-1", "d": DAY.encode(), "t": str(TIME_US).encode(), "w": b"w@here"}
    found = [(name.encode(), value) for name, value in (fields | changed).items() if value is not None]
    found += [(b"b", orjson.dumps([row])) for row in rows]
    return found


def _task_row(**changed: Any) -> list[Any]:
    row = {
        "kind": "t", "action": "ship", "item": 3, "status": "succeeded", "attempt": 2, "sequence": 200_005,
        "queue": "gpu", "started_us": TIME_US - 60, "finished_us": TIME_US - 20, "result": '{"a":1}', "error": None,
    }  # fmt: skip
    return list((row | changed).values())


def test_a_task_row_is_read_with_its_times() -> None:
    parsed = parse_entry("1-0", _entry(_task_row()))
    assert parsed == ParsedEntry(
        tasks=[
            TaskUpdate(
                DAY, "run-1", "ship", 3, "succeeded", 2, 200_005, "gpu", "w@here", TIME_US - 60, TIME_US - 20,
                '{"a":1}', None,
            )
        ]
    )  # fmt: skip


def test_every_blob_of_an_entry_is_read() -> None:
    parsed = parse_entry("1-0", _entry(_task_row(item=1), _task_row(item=2), ["s", "suspended", 7]))
    assert [row.item for row in parsed.tasks] == [1, 2]
    assert parsed.sessions == [SessionUpdate(DAY, "run-1", "suspended", 7)]
    assert parsed.rows == 3


def test_nothing_ends_after_the_entry_that_says_so() -> None:
    parsed = parse_entry("1-0", _entry(_task_row(finished_us=TIME_US + 7)))
    assert parsed.tasks[0].finished_us == TIME_US


def test_nothing_ends_before_it_began_though_the_clock_was_set_back() -> None:
    parsed = parse_entry("1-0", _entry(_task_row(started_us=TIME_US - 20, finished_us=TIME_US - 60)))
    assert (parsed.tasks[0].started_us, parsed.tasks[0].finished_us) == (TIME_US - 60, TIME_US - 60)


def test_a_branch_row_is_read_with_how_long_it_waited() -> None:
    parsed = parse_entry("1-0", _entry(["b", "ship", "failed", 1, 100_005, None, None, TIME_US, 44]))
    assert parsed.branches == [
        BranchUpdate(DAY, "run-1", "ship", "failed", 1, 100_005, None, "w@here", None, TIME_US, 44)
    ]


def test_an_entry_without_worker_is_good() -> None:
    assert parse_entry("1-0", _entry(_task_row(), w=None)).tasks[0].worker is None
    assert parse_entry("1-0", _entry(_task_row(), w=b"")).tasks[0].worker is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("s", None), ("s", b""), ("s", b"a\x00b"), ("s", b"\xff"), ("s", b"x" * 501),
        ("d", None), ("d", b"yesterday"), ("d", b"20261124"), ("d", b"2026-13-01"),
        ("t", None), ("t", b"now"), ("t", b"-1"), ("t", b"9" * 30), ("t", b"9" * 5000), ("w", b"a\nb"),
    ],
)  # fmt: skip
def test_an_entry_with_a_wrong_head_is_one_dead_letter_with_all_of_it(field: str, value: bytes | None) -> None:
    entry = _entry(_task_row(), **{field: value})
    parsed = parse_entry("1-0", entry)
    assert parsed.rows == 0
    (letter,) = parsed.dead_letters
    assert letter.reason
    assert [
        (name.encode(errors="surrogateescape"), content.encode(errors="surrogateescape"))
        for name, content in json.loads(letter.content)
    ] == entry


@pytest.mark.parametrize(
    "row",
    [
        [], ["y"], ["t"], _task_row()[:-1], [*_task_row(), 1], _task_row(action=""), _task_row(action=None),
        _task_row(action="a\x1fb"), _task_row(action=["a"]), _task_row(item=-2), _task_row(item=2**31),
        _task_row(item=1.0), _task_row(item=True), _task_row(status="done"), _task_row(status=["a"]),
        _task_row(attempt="1"), _task_row(sequence=-1), _task_row(queue=7), _task_row(started_us="1"),
        _task_row(finished_us=10**18), _task_row(result={"a": 1}), _task_row(error=5),
        ["b", "ship", "failed"], ["b", "ship", "nonsense", 1, 1, None, None, None, None], ["s", "succeeded", 1],
        ["s", "running", None], ["s"],
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_row_is_a_dead_letter_and_its_neighbours_are_good(row: list[Any]) -> None:
    parsed = parse_entry("1-0", [*_entry(), (b"b", orjson.dumps([_task_row(item=1), row, _task_row(item=2)]))])
    assert [good.item for good in parsed.tasks] == [1, 2]
    (letter,) = parsed.dead_letters
    assert letter.flow_session_id == "run-1"
    assert json.loads(letter.content) == row


@pytest.mark.parametrize("blob", [b"", b"{}", b"null", b"[", b"\xff", b"[" * 100_000])
def test_a_blob_that_is_no_array_is_a_dead_letter(blob: bytes) -> None:
    parsed = parse_entry("1-0", [*_entry(_task_row()), (b"b", blob)])
    assert parsed.rows == 1
    assert [letter.content for letter in parsed.dead_letters] == [blob]


def test_a_lone_surrogate_in_one_row_does_not_cost_the_others() -> None:
    blob = json.dumps([_task_row(item=1, result='"\ud800"'), _task_row(item=2, action="\ud800"), _task_row(item=3)])
    parsed = parse_entry("1-0", [*_entry(), (b"b", blob.encode())])
    assert [row.item for row in parsed.tasks] == [1, 3]
    assert len(parsed.dead_letters) == 1


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=12)
)
_rows = st.lists(st.tuples(st.sampled_from(["t", "b", "s"]), st.lists(_json, max_size=11)).map(lambda t: [t[0], *t[1]]))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"s", b"d", b"t", b"w", b"b", b"c", b"?"]),
            st.binary()
            | st.sampled_from([b"run", DAY.encode(), b"1790000000000000"])
            | _rows.map(json.dumps).map(str.encode),
        )
    ),
    st.booleans(),
)
def test_nothing_raises(fields: list[tuple[bytes, bytes]], headed: bool) -> None:
    parse_entry("1-0", _entry() + fields if headed else fields)
