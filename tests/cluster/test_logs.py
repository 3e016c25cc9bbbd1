"""What actions log is kept with their tasks, and every line of a worker carries the ids, on every pool."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from orchestration.store.pool import Database
from orchestration.store.task_logs import LoggedLine, lines_by_time
from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import Client, running_client
from tests.support.commands import parallelizer, running_command
from tests.support.fleet import Fleet
from tests.support.logging_actions import SECRET
from tests.support.records import Records
from tests.support.waiting import wait_until

ACTIONS = "tests.support.logging_actions"
POOLS = [("prefork", 2), ("threads", 2), ("gevent", 10), ("solo", 1)]
ITEMS = 8
EACH = {"for_each": {"range": ITEMS}, "with": {"number": "${{ item }}"}}
WORKFLOW: dict[str, Any] = {
    "name": "logging",
    "actions": {
        "first": {"uses": "logs.plain"},
        "each": {"uses": "logs.item", "needs": ["first"], **EACH},
        "waits": {"uses": "logs.wait", "needs": ["first"], **EACH},
        "again": {"uses": "logs.fails", "needs": ["first"], "retry": {"max_attempts": 2, "delay_seconds": 0.01}},
        "many": {"uses": "logs.many", "needs": ["again"], "with": {"lines": 12}},
    },
}  # fmt: skip


class Logging:
    """One worker, and what it has logged."""

    def __init__(self, fleet: Fleet, worker: LoggedProgram, client: Client) -> None:
        self.fleet = fleet
        self.worker = worker
        self.client = client

    def run(self, workflow: dict[str, Any]) -> str:
        result = self.client.run("result = send(workflow).delay().get(timeout=60)", workflow=workflow)
        assert result["status"] == "succeeded"
        return str(result["flow_session_id"])

    def kept(self, session: str, count: int) -> list[LoggedLine]:
        """The lines that are kept of a run, when there are so many."""
        found = "SELECT session_day FROM session_days WHERE flow_session_id = %s"
        wait_until(lambda: bool(Records(self.fleet).rows(found, session)), "the run is accepted")
        ((day,),) = Records(self.fleet).rows(found, session)
        with closing(Database(self.fleet.database_url)) as database:
            wait_until(lambda: len(lines_by_time(database, session, day)) >= count, f"{count} lines are kept")
            return lines_by_time(database, session, day)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What the processes of the worker wrote, all of it JSON but for what was printed while they started."""
        written = self.worker.log.read_text().splitlines()
        return [json.loads(line) for line in written if line.startswith('{"timestamp"')]


@contextmanager
def worker_on(fleet: Fleet, pool: str, concurrency: int) -> Iterator[Logging]:
    (worker,) = fleet.start(
        1, concurrency=concurrency, pool=pool, ACTION_MODULES=ACTIONS, LOG_FORMAT="json", TASK_LOG_LINES="10",
        LOG_LEVEL="info,processor=debug",
    )  # fmt: skip
    with running_client(fleet) as client:
        yield Logging(fleet, worker, client)


@pytest.mark.parametrize(("pool", "concurrency"), POOLS, ids=[pool for pool, _ in POOLS])
def test_each_line_is_kept_with_its_task_and_written_with_its_ids(fleet: Fleet, pool: str, concurrency: int) -> None:
    with worker_on(fleet, pool, concurrency) as logging:
        session = logging.run(WORKFLOW)
        check_kept(logging, session)
        check_written(logging, session)
        check_upkeep(logging)


def check_kept(logging: Logging, session: str) -> None:
    kept = logging.kept(session, 3 + ITEMS + 3 * ITEMS + 2 + 11)
    by_task: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    for line in kept:
        by_task[line.action, line.item, line.attempt].append(line.message.partition("\n")[0])
    assert by_task["first", -1, 1] == ["sold 3, password=***", "sold slowly", "from another thread"]
    for number in range(ITEMS):
        assert by_task["each", number, 1] == [f"item {number}"]
        assert by_task["waits", number, 1] == [f"{when} {number}" for when in ("before", "thread", "after")]
    assert by_task["again", -1, 1] == ["attempt 1 token=***"]
    assert by_task["again", -1, 2] == ["attempt 2 token=***"]
    assert by_task["many", -1, 1] == [
        *(f"line {number}" for number in range(10)),
        "what follows is not kept (TASK_LOG_LINES=10, TASK_LOG_BYTES=65536)",
    ]  # fmt: skip
    assert len(by_task) == 1 + 2 * ITEMS + 3
    (sold,) = [line for line in kept if line.message.startswith("sold 3")]
    assert (sold.level, sold.logger, sold.fields) == ("info", "shop.orders", {"sku": 7, "api_token": "***"})
    assert all(line.message.count("ValueError") == 1 for line in kept if line.action == "again")


def check_written(logging: Logging, session: str) -> None:
    of_run = [line for line in logging.lines if line.get("flow_session_id") == session]
    items = [line for line in of_run if line["event"].startswith("[ACTION] item ")]
    assert {(line["event"], line["task_id"], line["branch_id"]) for line in items} == {
        (f"[ACTION] item {number}", f"each:{number}", f"each:{number}") for number in range(ITEMS)
    }
    assert {line["workflow_id"] for line in items} == {"logging"}
    many = [line for line in of_run if line["event"].startswith("[ACTION] line ")]
    assert len(many) == 12
    assert {(line["task_id"], line["branch_id"]) for line in many} == {("many", "again")}
    assert any(line["event"].startswith("[PARALLELIZER] a runner of ") for line in of_run)
    assert any(line["event"].startswith("[CELERY] Task tasks.run_workflow[") for line in of_run)
    assert SECRET not in logging.worker.log.read_text()


def check_upkeep(logging: Logging) -> None:
    """Its upkeep process writes lines of the same format."""
    with closing(redis.Redis.from_url(logging.fleet.redis_url)) as client:
        client.xadd(f"pz:{{{logging.fleet.namespace}}}:status", {"s": "nonsense"})

    def upkeep() -> list[dict[str, Any]]:
        return [line for line in logging.lines if line["event"].startswith("[STATUS_CHANNEL] status update")]

    wait_until(lambda: bool(upkeep()), "the updater tells of what it can't read")
    assert psutil.Process(upkeep()[-1]["pid"]).cmdline()[1:3] == ["-m", "tasks.upkeep"]


def test_logs_and_events_follow_a_run_to_its_end(fleet: Fleet, tmp_path: Path) -> None:
    with worker_on(fleet, "prefork", 2) as logging:
        check_command(logging, tmp_path / "go")


def check_command(logging: Logging, go: Path) -> None:
    names = ("REDIS_URL", "DATABASE_URL", "NAMESPACE", "DATA_DIR")
    variables = {name: logging.fleet.environment[name] for name in names}
    actions = {"hold": {"uses": "logs.until", "with": {"path": str(go)}},
               "next": {"uses": "logs.plain", "needs": ["hold"]}}  # fmt: skip
    session = logging.client.run("result = send(workflow).delay().id", workflow={"name": "held", "actions": actions})
    logging.kept(session, 1)
    with (
        running_command("logs", session, "--follow", **variables) as command,
        running_command("events", session, "--follow", **variables) as events,
    ):
        command.wait_for("hold info: waiting")
        events.wait_for('"task"')
        go.touch()
        assert command.wait() == events.wait() == 0
        shown = [line.partition(" ")[2] for line in command.output.splitlines()]
        # one that is recorded late comes late
        told = sorted((json.loads(line) for line in events.output.splitlines()), key=lambda event: event["time"])
    assert shown == [
        "hold info: waiting", "hold info: seen", 'next info: sold 3, password=*** sku=7 api_token="***"',
        "next warning: sold slowly", "next info: from another thread",
    ]  # fmt: skip
    assert [(event["kind"], event["branch"] or event["action"], event["status"]) for event in told] == [
        ("run", None, "running"), ("branch", "hold", "running"), ("task", "hold", "running"),
        ("task", "hold", "succeeded"), ("task", "next", "running"), ("task", "next", "succeeded"),
        ("branch", "hold", "succeeded"), ("run", None, "succeeded"),
    ]  # fmt: skip
    done = parallelizer("logs", session, "next", "--level", "warning", "--json", folder=None, **variables)
    (line,) = [json.loads(text) for text in done.stdout.splitlines()]
    assert (line["action"], line["item"], line["attempt"], line["level"]) == ("next", None, 1, "warning")
    assert (line["message"], line["workflow"], line["flow_session_id"]) == ("sold slowly", "held", session)
    assert parallelizer("logs", "nobody", folder=None, **variables).returncode == 2
