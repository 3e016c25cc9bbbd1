"""What the page of a run asks for, asked by hand: its picture, what changes, pages of its tasks; and who may not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from orchestration.store import sessions, updates
from orchestration.store.pool import Database
from orchestration.vocabulary import RunStatus
from tests.integration.store.rows import new_session, task
from tests.support.fleet import Fleet
from tests.support.flower import RunningFlower, running_flower
from tests.support.seeded_runs import seed_run

MISSING = "00000000-0000-4000-8000-000000000000"
PARTS = ("", "/tasks", "/task?action=fetch", "/inputs?action=fetch", "/density?from=0&to=1000&bins=10", "/why")


@pytest.fixture(scope="module")
def database(module_fleet: Fleet) -> Iterator[Database]:
    with closing(Database(module_fleet.database_url)) as database:
        yield database


@pytest.fixture(scope="module")
def flower(module_fleet: Fleet) -> Iterator[RunningFlower]:
    with running_flower(module_fleet, "basic", "monitor") as running:
        yield running


@pytest.fixture(scope="module")
def seeded(database: Database) -> str:
    return seed_run(database, 1_000)


@pytest.fixture
def client(flower: RunningFlower) -> httpx.Client:
    return flower.client()


def test_the_picture_is_compressed_where_that_is_understood(client: httpx.Client, seeded: str) -> None:
    found = {}
    for encoding in ("gzip", "identity"):
        answer = client.get(f"/flow/api/run/{seeded}", headers={"Accept-Encoding": encoding})
        assert answer.status_code == 200
        assert answer.headers.get("content-encoding") == (encoding if encoding == "gzip" else None)
        assert "Accept-Encoding" in answer.headers["vary"]
        found[encoding] = answer.json()
    assert found["gzip"] == found["identity"]
    assert found["gzip"]["total"] == 1_009


def test_every_part_answers_and_names_what_is_not_there(client: httpx.Client, seeded: str) -> None:
    for part in PARTS:
        assert client.get(f"/flow/api/run/{seeded}{part}").status_code == 200, part
        answer = client.get(f"/flow/api/run/{MISSING}{part}")
        assert answer.status_code == 404, part
        assert MISSING in answer.json()["error"]
    assert client.get(f"/flow/api/run/{seeded}/task?action=none").status_code == 404
    assert client.get(f"/flow/api/run/{seeded}/why?action=none").status_code == 404
    assert client.get(f"/flow/run/{seeded}").status_code == 200
    assert client.get("/flow/api/run/a%00b").status_code == 404


@pytest.mark.parametrize(
    "part",
    [
        "/task?action=fetch&item=x", "/task?action=fetch&item=-2", "/task?action=fetch&item=9999999999999",
        "/tasks?status=wrong", "/tasks?after=%7B", "/tasks?after=1", "/tasks?limit=x", "/tasks?after=%5B1%5D",
        "/density?from=0&to=0&bins=10", "/density?from=0", "/density?from=0&to=9&bins=99999999", "/events/x",
        "/events/1:2:3;", "/tasks?after=%5B1e30%2C%22a%22%2C1%5D", "/why?action=fetch&item=x",
        "/density?from=0&to=99999999999999999999999999&bins=5",
    ],
)  # fmt: skip
def test_what_can_t_be_understood_is_refused_with_a_word(client: httpx.Client, seeded: str, part: str) -> None:
    answer = client.get(f"/flow/api/run/{seeded}{part}")
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_strangers_get_nothing(flower: RunningFlower, seeded: str) -> None:
    stranger = flower.client(None)
    for path in (
        f"/flow/run/{seeded}",
        *(f"/flow/api/run/{seeded}{part}" for part in PARTS),
        f"/flow/api/run/{seeded}/events/1:1:",
    ):
        answer = stranger.get(path)
        assert answer.status_code == 401, path
        assert "fetch" not in answer.text


def test_pages_follow_one_another(client: httpx.Client, seeded: str) -> None:
    seen, after = [], ""
    while True:
        found = client.get(
            f"/flow/api/run/{seeded}/tasks", params={"limit": 300, "by": "slowest", "after": after}
        ).json()
        seen += [(row[0], row[1]) for row in found["rows"]]
        if found["next"] is None:
            break
        after = json.dumps(found["next"])
    assert len(seen) == len(set(seen)) == 1_009


def events(client: httpx.Client, path: str, **headers: str) -> Iterator[tuple[str, str, dict[str, object]]]:
    """(name, id, value) of each event of a stream."""
    with client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        name = number = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("id: "):
                number = line[4:]
            elif line.startswith("data: "):
                yield name, number, json.loads(line[6:])


def test_a_stream_tells_what_changes_and_goes_on_where_it_was_cut(
    client: httpx.Client, flower: RunningFlower, database: Database
) -> None:
    run = new_session(database, "streamed", {"each": {"uses": "core.noop", "for_each": {"range": 9}}})
    day, start = str(run.session_day), round(run.created_at.timestamp() * 1e6)

    def write(item: int) -> None:
        row = task(run.flow_session_id, "each", item, day=day, started_us=start, finished_us=start + item)
        updates.write_rows(database, [row])

    mark = client.get(f"/flow/api/run/{run.flow_session_id}").json()["mark"]
    write(0)
    path = f"/flow/api/run/{run.flow_session_id}/events/{mark}"
    stream = events(client, path)
    name, first, frame = next(stream)
    assert (name, frame["rows"]["item"]) == ("frame", [0])  # type: ignore[index]
    # a second viewer, by the same reader
    other = events(flower.client(), path)
    assert next(other)[2]["rows"]["item"] == [0]  # type: ignore[index]
    write(1)
    assert items_until(stream, 1) == [1]
    assert items_until(other, 1) == [1]
    stream.close()  # type: ignore[attr-defined]
    write(2)
    # as a browser does when it comes back: the mark in the path is older than what it has seen
    again = events(flower.client(), path, **{"Last-Event-ID": first})
    assert items_until(again, 2) == [1, 2]
    sessions.finish_session(database, run.flow_session_id, run.session_day, RunStatus.SUCCEEDED)
    names = [name for name, _, _ in again]
    assert names[-1] == "end"


def items_until(stream: Iterator[tuple[str, str, dict[str, object]]], last: int) -> list[int]:
    """Items that frames tell, each once, up to this one."""
    seen: list[int] = []
    for _, _, frame in stream:
        rows = frame["rows"]
        assert isinstance(rows, dict)
        seen += [item for item in rows.get("item", []) if item not in seen]
        if last in seen:
            return seen
    raise AssertionError("the stream has ended")
