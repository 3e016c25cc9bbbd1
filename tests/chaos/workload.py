"""What runs while faults come: a seeded mix of small workflows, sent again and again until each is accepted.

A sender knows the id of what it sends before it sends it, so it may send again when it does not know whether a message
has arrived: the same id is the same run.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg2
from celery._state import _set_task_join_will_block

from orchestration.definition import load_definition
from orchestration.plan import compile_plan
from orchestration.registry import load_actions
from orchestration.store import workflows
from orchestration.store.pool import Database
from tests.chaos.stack import MODULES

Definition = dict[str, Any]

#: How many runs may be under way: a fleet that is down is not buried under what waits for it.
MOST_OPEN: Final = 80
LOOK_SECONDS: Final = 0.25
#: Most runs of a workflow at once whose limit is watched, and branches of one run.
NARROW_BRANCHES: Final = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """A workflow of the mix, and how each run of it has to end."""

    definition: Definition
    #: How often it is chosen.
    weight: int
    #: Tasks of a run by status.
    counts: dict[str, int]
    status: str = "succeeded"
    #: Executions of its tasks that its retries allow beyond the first, by action.
    retries: dict[str, int] = field(default_factory=dict)
    #: Most branches of one run at once.
    most_branches: int = 10


def step(needs: list[str], seconds: float, uses: str = "chaos.work", **more: object) -> Definition:
    """An action that takes so long."""
    return {"uses": uses, "needs": needs, "with": {"seconds": seconds}, **more}


def kinds() -> dict[str, Kind]:
    """The mix, by name."""
    sides = [f"side{n}" for n in range(4)]
    made = [
        Kind(
            {"name": "chain", "actions": {f"s{n}": step([f"s{n - 1}"] if n else [], 0.01) for n in range(5)}},
            3, {"succeeded": 5},
        ),
        Kind(
            {"name": "fork", "actions": {
                "first": step([], 0.005), **{side: step(["first"], 0.02) for side in sides}, "join": step(sides, 0.005),
            }},
            4, {"succeeded": 6},
        ),
        Kind(
            {"name": "items", "actions": {
                "each": step([], 0.004, for_each={"range": 20}), "after": step(["each"], 0.0),
            }},
            3, {"succeeded": 21},
        ),
        Kind(
            {"name": "slow", "actions": {
                "first": step([], 0.0), "long": step(["first"], 1.5), "short": step(["first"], 0.1),
                "join": step(["long", "short"], 0.0),
            }},
            2, {"succeeded": 4},
        ),
        Kind(
            {"name": "async", "actions": {
                "first": step([], 0.0), **{side: step(["first"], 0.3, "chaos.work_async") for side in sides},
                "join": step(sides, 0.0),
            }},
            2, {"succeeded": 6},
        ),
        Kind(
            {"name": "chorded", "dispatch": "chord", "actions": {
                "first": step([], 0.0), **{side: step(["first"], 0.05) for side in sides}, "join": step(sides, 0.0),
            }},
            2, {"succeeded": 6},
        ),
        Kind(
            {"name": "partial", "actions": {
                "first": step([], 0.0), "fails": {"uses": "chaos.fail", "needs": ["first"]},
                "goes": step(["first"], 0.05), "never": step(["fails"], 0.0),
                "always": step(["never", "goes"], 0.0, trigger_rule="all_done"),
            }},
            2, {"succeeded": 3, "failed": 1, "upstream_failed": 1},
        ),
        Kind(
            {"name": "flaky", "actions": {
                "first": step([], 0.0), "side": step(["first"], 0.02),
                "again": {"uses": "chaos.flaky", "needs": ["first"],
                          "retry": {"max_attempts": 3, "delay_seconds": 0.1}},
                "join": step(["side", "again"], 0.0),
            }},
            2, {"succeeded": 4}, retries={"again": 2},
        ),
        Kind(
            {"name": "narrow", "limits": {"max_concurrent_branches": NARROW_BRANCHES}, "actions": {
                "each": step([], 0.03, for_each={"range": 8}),
            }},
            2, {"succeeded": 8}, most_branches=NARROW_BRANCHES,
        ),
    ]  # fmt: skip
    return {str(kind.definition["name"]): kind for kind in made}


def publish(database_url: str, mix: dict[str, Kind]) -> None:
    """The workflows can be run by their names."""
    load_actions(MODULES)
    with closing(Database(database_url)) as database:
        for kind in mix.values():
            loaded = load_definition(kind.definition)
            plan = compile_plan(loaded)
            workflows.register_version(database, loaded.name, plan.version_id, loaded.to_dict(), publish=True)


class Sender:
    """Sends runs from a thread of its own, as many as may be open.

    Args: a_second: at most so many.
    """

    def __init__(
        self, broker_url: str, database_url: str, mix: dict[str, Kind], chance: random.Random, a_second: float
    ) -> None:
        self._broker_url = broker_url
        self._database_url = database_url
        self._names = [name for name, kind in mix.items() for _ in range(kind.weight)]
        self._chance = chance
        self._pause = 1 / a_second
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        #: Name of the workflow by run; in the order of sending.
        self.sent: dict[str, str] = {}
        self.failed_sends: Counter[str] = Counter()

    def start(self) -> None:
        """Send from now on."""
        _set_task_join_will_block(True)  # Celery then asks Redis for no results, which nobody waits for
        self._thread.start()

    def stop(self) -> None:
        """Send nothing new; what was begun is sent."""
        self._stopping.set()
        self._thread.join()

    def send_again(self) -> int:
        """Send what nobody has accepted yet: its message may be gone. Returns how many."""
        known = self._known()
        missing = [run for run in list(self.sent) if run not in known]
        for run in missing:
            self._send(run, self.sent[run])
        return len(missing)

    def _known(self) -> set[str]:
        with closing(psycopg2.connect(self._database_url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT flow_session_id::text FROM flow_sessions")
            return {row[0] for row in cursor.fetchall()}

    def _run(self) -> None:
        open_runs, looked = 0, 0.0
        while not self._stopping.wait(self._pause):
            if time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                with suppress(psycopg2.Error):
                    open_runs = len(self.sent) - ended_runs(self._database_url, self.sent)
            if open_runs < MOST_OPEN:
                run = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
                name = self._chance.choice(self._names)
                self.sent[run] = name
                open_runs += 1
                while not self._send(run, name) and not self._stopping.wait(0.1):
                    pass

    def send(self, name: str) -> str:
        """Send one more run, of any workflow that is published; returns it."""
        run = str(uuid.uuid4())
        self.sent[run] = name
        assert self._send(run, name), f"{name} was not sent: {self.failed_sends}"
        return run

    def _send(self, run: str, name: str) -> bool:
        from tasks import app, run_workflow  # noqa: PLC0415 - after the environment is set

        try:
            with app.connection_for_write(self._broker_url) as connection:
                run_workflow.apply_async((name, {}), task_id=run, retry=False, connection=connection)
        except Exception as error:  # noqa: BLE001 - whatever a client sees while its broker is away
            self.failed_sends[type(error).__name__] += 1
            return False
        return True


def ended_runs(database_url: str, among: Iterable[str]) -> int:
    """How many of these runs have ended."""
    with (
        closing(psycopg2.connect(database_url, connect_timeout=2)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "SELECT count(*) FROM flow_sessions WHERE finished_at IS NOT NULL AND flow_session_id = ANY (%s)",
            (list(among),),
        )
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])
