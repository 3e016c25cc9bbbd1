"""Dead letters: listed with their reason, recorded when that is possible, kept when it is not. By the command too."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from orchestration.channel.replay import Replay, replay_dead_letter
from orchestration.channel.updater import Updater
from orchestration.state.stream import StatusStream
from orchestration.store.dead_letters import DeadLetter, KeptDeadLetter, insert_dead_letters, list_dead_letters
from orchestration.store.pool import Database
from tests.integration.channel.entries import entry
from tests.integration.store.rows import NOON_US, new_session
from tests.support.commands import parallelizer

#: A stream id of that time.
SOURCE = f"{NOON_US // 1000}-0"


@pytest.fixture(autouse=True)
def no_letters(database: Database) -> None:
    """Each test begins without."""
    database.execute("DELETE FROM status_dead_letters")


def kept(database: Database, *letters: DeadLetter) -> list[KeptDeadLetter]:
    """The letters, as they are kept, in this order."""
    with database.transaction() as cursor:
        insert_dead_letters(cursor, letters)
    return sorted(list_dead_letters(database), key=lambda one: one.id)


def row(item: int) -> list[object]:
    return ["t", "work", item, "succeeded", 1, 100_005, "branches", NOON_US - 60, NOON_US + 10_000_000, "{}", None]


def recorded(database: Database, session: str) -> list[tuple[int, int]]:
    """Items, and µs since the epoch of their ends."""
    ended_us = "(extract(epoch FROM finished_at) * 1000000)::bigint"
    query = f"SELECT item, {ended_us} FROM tasks WHERE flow_session_id = %s ORDER BY item"
    return [(item, int(ended)) for item, ended in database.fetch(query, (session,))]


def test_every_kind_of_letter_is_recorded_once_it_can_be_read(database: Database) -> None:
    session = new_session(database)
    run, day = session.flow_session_id, session.session_day.isoformat()
    update = [day, run, "work", 4, "succeeded", 1, 100_005, "branches", "worker", NOON_US, NOON_US, "{}", None]
    letters = kept(
        database,
        DeadLetter(SOURCE, "unknown field", orjson.dumps([[n.decode(), v.decode()] for n, v in entry(run, 1)])),
        DeadLetter(SOURCE, "unknown kind", orjson.dumps([row(2)]), run),
        DeadLetter(SOURCE, "unknown status", orjson.dumps(row(3)), run),
        DeadLetter("row", "refused", orjson.dumps(update), run),
    )
    assert [replay_dead_letter(database, one) for one in letters] == [Replay(one.id, True) for one in letters]
    items = recorded(database, run)
    assert [item for item, _ in items] == [1, 2, 3, 4]
    end_of_entry = (NOON_US // 1000 + 1) * 1000
    assert [ended for item, ended in items if item in (2, 3)] == [end_of_entry] * 2, "nothing ends after its entry"
    assert list_dead_letters(database) == []


def test_what_still_can_not_be_read_stays_as_it_is(database: Database) -> None:
    run = new_session(database).flow_session_id
    letters = kept(
        database,
        DeadLetter(SOURCE, "why", b"\xff\x00"),
        DeadLetter(SOURCE, "why", b"no json", run),
        DeadLetter(SOURCE, "why", orjson.dumps([row(1)]), "nobody"),
        DeadLetter("row", "why", b"[1, 2]", run),
    )
    for one in letters:
        assert not replay_dead_letter(database, one).is_recorded
    assert sorted(list_dead_letters(database), key=lambda one: one.id) == letters


def test_a_row_that_is_refused_again_stands_in_a_new_letter(database: Database, stream: StatusStream) -> None:
    run = new_session(database).flow_session_id
    bad = [*row(1)[:9], "NaN", None]
    stream.append([*entry(run)[:-1], (b"b", orjson.dumps([bad]))])
    Updater(stream, database, "me").drain_all()
    (letter,) = list_dead_letters(database)
    replayed = replay_dead_letter(database, letter)
    assert not replayed.is_recorded
    assert "json" in replayed.reason
    (again,) = list_dead_letters(database)
    assert (again.letter, again.id > letter.id) == (letter.letter, True)


def test_the_command_lists_and_replays(database: Database, database_url: str, redis_url: str, tmp_path: Path) -> None:
    run = new_session(database).flow_session_id

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return parallelizer("dead-letters", *arguments, folder=tmp_path, REDIS_URL=redis_url, DATABASE_URL=database_url)

    def as_json(*arguments: str, code: int) -> Any:
        done = command(*arguments, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    assert as_json("list", code=0) == []
    good, bad, other = kept(
        database,
        DeadLetter(SOURCE, "a reason", orjson.dumps([row(1)]), run),
        DeadLetter(SOURCE, "another", b"no json", run),
        DeadLetter(SOURCE, "a third", orjson.dumps([row(2)]), run),
    )
    listed = as_json("list", code=0)
    assert [line["id"] for line in listed] == [other.id, bad.id, good.id]
    assert (listed[1]["reason"], listed[1]["content"], listed[1]["flow_session_id"]) == ("another", "no json", run)
    shown = command("list", "--limit", "1").stdout
    assert "a third" in shown
    assert "2 more" in shown

    assert [line["found"] for line in as_json("replay", str(good.id), code=0)] == ["recorded"]
    assert [line["found"] for line in as_json("replay", str(good.id), str(bad.id), code=2)] == ["unknown", "refused"]
    assert [line["found"] for line in as_json("replay", "--all", code=1)] == ["refused", "recorded"]
    assert [item for item, _ in recorded(database, run)] == [1, 2]
    for wrong in ((), ("--all", "1"), ("x",)):
        refused = command("replay", *wrong)
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr
