"""Redis loses what it holds while many runs are at work: all end, and what PostgreSQL knows is not run again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from orchestration.definition import load_definition
from orchestration.plan import compile_plan
from orchestration.registry import load_actions
from orchestration.store import sessions, workflows
from orchestration.store.pool import Database
from orchestration.vocabulary import Dispatch
from parallelizer.services.folder import prepare_folder
from parallelizer.services.valkey import EmbeddedValkey
from tests.support.clients import Client, running_client
from tests.support.crashes import pool_processes
from tests.support.fleet import Fleet, running_fleet
from tests.support.journal import read_journal
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

ACTION_MODULES = "tests.support.journal"
#: Seconds; nothing is taken for lost in the first 5 in any case.
LEASE = "3"
RUNS = 24


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    """A server of this test's own."""
    folder = Path(tempfile.mkdtemp(prefix="parallelizer-rehydration-"))
    server = EmbeddedValkey(prepare_folder(folder / "data"))
    server.start()
    server.wait_ready()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def two(valkey: EmbeddedValkey, database_url: str, namespace: str, tmp_path: Path) -> Iterator[Fleet]:
    """Two workers of three processes."""
    with running_fleet(valkey.url, database_url, namespace, tmp_path / "fleet") as fleet:
        fleet.start(2, concurrency=3, ACTION_MODULES=ACTION_MODULES, LEASE_SECONDS=LEASE)
        yield fleet


@pytest.fixture
def client(two: Fleet) -> Iterator[Client]:
    with running_client(two) as running:
        yield running


@pytest.fixture
def database(two: Fleet) -> Iterator[Database]:
    with closing(Database(two.database_url)) as opened:
        yield opened


class Runs:
    """Runs of one workflow, each with a journal of its own."""

    def __init__(
        self, client: Client, database: Database, folder: Path, dispatch: Dispatch = Dispatch.COUNTED
    ) -> None:  # fmt: skip
        self._client = client
        self._database = database
        self._folder = folder
        self._dispatch = dispatch
        folder.mkdir()
        self.sessions: list[str] = []
        self._known: dict[tuple[int, str], int] = {}

    def begin(self, number: int) -> None:
        for index in range(number):
            workflow = {**forked(self._folder / str(index)), "dispatch": self._dispatch}
            code = "result = send(workflow, payload).delay().id"
            self.sessions.append(self._client.run(code, workflow=workflow, payload={"run": index}))
        # a message that nobody has accepted yet is lost with Redis
        wait_until(lambda: len(self.recorded()) == number, "all runs are accepted")

    def starts(self, index: int) -> Counter[str]:
        return Counter(task for kind, task, *_ in read_journal(self._folder / str(index)) if kind == "start")

    def settled(self) -> int:
        """How many tasks PostgreSQL knows to have settled."""
        return int(
            self._database.fetch(
                "SELECT count(*) FROM tasks WHERE flow_session_id = ANY (%s) AND status = 'succeeded'", (self.sessions,)
            )[0][0]
        )

    def note_settled(self) -> None:
        """Remember what PostgreSQL knows, and how often that has run."""
        rows = self._database.fetch(
            "SELECT flow_session_id, action, item FROM tasks WHERE flow_session_id = ANY (%s) AND status = 'succeeded'",
            (self.sessions,),
        )
        starts = [self.starts(index) for index in range(len(self.sessions))]
        for session, action, item in rows:
            index, task = self.sessions.index(session), action if item < 0 else f"{action}:{item}"
            self._known[index, task] = starts[index][task]

    def results(self) -> list[dict[str, Any]]:
        """Of all runs that have not ended yet, as their callers get them; Redis has just lost those of the others."""
        rows = self._database.fetch(
            "SELECT flow_session_id FROM flow_sessions WHERE flow_session_id = ANY (%s) AND finished_at IS NULL",
            (self.sessions,),
        )
        waiting = [row[0] for row in rows]
        assert len(waiting) > RUNS / 2
        code = "result = [AsyncResult(session).get(timeout=90) for session in sessions]"
        found: list[dict[str, Any]] = self._client.run(code, sessions=waiting)
        return found

    def recorded(self) -> dict[str, str]:
        """Status of all runs."""
        rows = self._database.fetch(
            "SELECT flow_session_id, status FROM flow_sessions WHERE flow_session_id = ANY (%s)", (self.sessions,)
        )
        return dict(rows)

    def again(self) -> dict[tuple[int, str], int]:
        """What was known and has run since."""
        return {key: times for key, times in self._known.items() if self.starts(key[0])[key[1]] != times}


def forked(journal: Path) -> Definition:
    """A branch of two steps, twenty items beside another branch of two steps, and what needs all of it."""
    step = record(journal, seconds=0.05)
    each = {**step, "needs": ["second"], "for_each": {"range": 20}}
    return {
        "name": "forked",
        "actions": {
            "first": step, "second": {**step, "needs": ["first"]}, "each": each,
            "beside": {**step, "needs": ["second"]}, "then": {**step, "needs": ["beside"]},
            "last": {**step, "needs": ["each", "then"]},
        },
        "output": {
            "run": "${{ payload.run }}", "items": "${{ tasks.each.result }}", "last": "${{ tasks.last.result }}",
        },
    }  # fmt: skip


def expected(run: int) -> dict[str, Any]:
    return {"run": run, "items": [f"each:{item}" for item in range(20)], "last": "last"}


def check(runs: Runs) -> None:
    for result in runs.results():
        run = runs.sessions.index(result["flow_session_id"])
        assert (result["status"], result["output"]) == ("succeeded", expected(run))
    assert runs.recorded() == dict.fromkeys(runs.sessions, "succeeded")


@pytest.mark.parametrize("dispatch", Dispatch, ids=str)
def test_all_runs_end_after_redis_has_lost_everything(
    two: Fleet, client: Client, database: Database, tmp_path: Path, journal: Path, dispatch: Dispatch
) -> None:
    release = tmp_path / "release"
    held = {"uses": "test.wait_for_file", "with": {"journal": str(journal), "path": str(release), "seconds": 90}}
    linear = {"name": "held", "actions": {"held": held, "after": {**record(journal), "needs": ["held"]}}}
    code = "result = chain(send(first), follow(second)).apply_async().id"
    second = {"name": "chained", "actions": {"chained": record(journal)}}
    chained = client.run(code, first=linear, second=second)
    wait_until(lambda: bool(read_journal(journal)), "the linear run is at work")
    runs = Runs(client, database, tmp_path / "journals", dispatch)
    runs.begin(RUNS)
    wait_until(lambda: runs.settled() > RUNS * 5, "a fifth of the tasks have settled")
    runs.note_settled()
    with redis.Redis.from_url(two.redis_url) as server:
        server.flushall()
    check(runs)
    assert runs.again() == {}, "what PostgreSQL knew is not run again"
    release.touch()
    result = client.run("result = AsyncResult(session).get(timeout=60)", session=chained)
    assert result["status"] == "succeeded"
    ran = Counter(task for kind, task, *_ in read_journal(journal) if kind == "start")
    assert ran == {"held": 1, "after": 1, "chained": 1}, "a first branch that still runs is not run beside itself"


@pytest.mark.parametrize("seed", range(2))
def test_all_runs_end_although_processes_die_while_they_are_rebuilt(
    two: Fleet, client: Client, database: Database, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    runs = Runs(client, database, tmp_path / "journals")
    runs.begin(RUNS)
    wait_until(lambda: runs.settled() > RUNS * 5, "a fifth of the tasks have settled")
    runs.note_settled()
    with redis.Redis.from_url(two.redis_url) as server:
        server.flushall()
        open_sessions = f"pz:{{{two.namespace}}}:sessions:open"
        wait_until(lambda: server.zcard(open_sessions) > 0, "the first run is rebuilt")
    for worker in two.workers:
        for process in chance.sample(pool_processes(worker), 2):
            os.kill(process, signal.SIGKILL)
    check(runs)
    assert runs.again() == {}, "what PostgreSQL knew is not run again"


def test_all_runs_end_after_redis_came_back_with_an_older_state(
    two: Fleet, client: Client, database: Database, tmp_path: Path
) -> None:
    runs = Runs(client, database, tmp_path / "journals")
    runs.begin(RUNS)
    wait_until(lambda: runs.settled() > RUNS * 4, "some tasks have settled")
    with redis.Redis.from_url(two.redis_url) as server:
        older = live_state(server, two.namespace)
        before = runs.settled()
        wait_until(lambda: runs.settled() > before + RUNS * 3, "more tasks have settled")
        runs.note_settled()
        go_back(server, two.namespace, older)
    check(runs)
    again = runs.again()
    assert len(again) < RUNS, "only what was begun before that was noticed has run again"
    for index in range(RUNS):
        assert max(runs.starts(index).values()) <= 3


def live_state(server: redis.Redis, namespace: str) -> dict[bytes, tuple[bytes, int]]:
    """All keys of live state, with what they hold and how long."""
    names = list(server.scan_iter(f"pz:{{{namespace}}}:*"))
    pipe = server.pipeline()
    for name in names:
        pipe.dump(name)
        pipe.pttl(name)
    replies = pipe.execute()
    kept = zip(names, replies[::2], replies[1::2], strict=True)
    return {name: (value, max(0, ttl)) for name, value, ttl in kept if value is not None}


def go_back(server: redis.Redis, namespace: str, older: dict[bytes, tuple[bytes, int]]) -> None:
    """Live state is what it was. (After a real crash and restart, Celery's transport may not come back.)"""
    pipe = server.pipeline(transaction=True)
    pipe.delete(*server.scan_iter(f"pz:{{{namespace}}}:*"))
    for name, (value, ttl) in older.items():
        pipe.restore(name, ttl, value, replace=True)
    pipe.execute()


def test_a_run_that_was_accepted_and_whose_message_is_gone_is_taken_up(
    two: Fleet, client: Client, database: Database, journal: Path
) -> None:
    load_actions(("tests.support.journal",))
    definition = load_definition({"name": "lost", "actions": {"only": record(journal)}})
    version_id, session = compile_plan(definition).version_id, str(uuid.uuid4())
    version = workflows.register_version(database, definition.name, version_id, definition.to_dict(), publish=False)
    sessions.insert_session(
        database, session, workflow="lost", version_id=version_id, version=version.number, payload="{}",
        celery_task_id=session, call=f'{{"namespace": "{two.namespace}", "queue": "branches"}}',
    )  # fmt: skip
    result = client.run("result = AsyncResult(session).get(timeout=60)", session=session)
    assert (result["status"], len(read_journal(journal))) == ("succeeded", 2)
