"""Five hundred random scenarios of sessions, limits, keys, changes and killed processes: no limit is ever exceeded.

What is checked comes from PostgreSQL alone: the start and the end of each task, both by Redis's clock.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.clients import Client, running_client
from tests.support.crashes import kill, pool_processes
from tests.support.fleet import Fleet
from tests.support.overlap import Span, Spell, breaches
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition

SCENARIOS = 500
SEED = 5
#: One scenario in so many has a process killed in it; in others a limit is changed while they run.
KILL_EVERY, CHANGE_EVERY = 10, 3
#: What runs when a limit is lowered may end; a branch or a chunk of these scenarios takes some 30 ms of it.
EXCESS_US = 1_000_000
#: A limit of the fleet is always there, so that a change of it holds at once for every process.
MOST_GLOBAL = 100
CHANGE = """
from config.settings import get_settings
from orchestration.state.live import LiveState
from tasks import canvas
live = LiveState(get_settings().redis_url, get_settings().namespace)
def now():
    seconds, micros = live.client.time()
    return seconds * 1_000_000 + micros
def change(name, most):
    begun = now()
    canvas.publish_runners(live.set_limit(name, most).publications)
    return [name, most, begun, now()]
"""
TASKS = """
SELECT flow_session_id::text, action, item, started_at, finished_at FROM tasks
WHERE flow_session_id = ANY (%s) AND started_at IS NOT NULL
"""


@dataclass
class Scenario:
    """Sessions that are sent at once, the limits that are to hold, and what is done meanwhile."""

    definitions: list[Definition]
    sessions: list[tuple[int, str]]
    changes: list[tuple[str, int]]
    kills: bool
    #: By level: in which spells which limit was in force.
    spells: dict[str, list[Spell]] = field(default_factory=dict)

    def changed(self, name: str, most: int, begun: int, done: int) -> None:
        """An operator's limit came into force in this time."""
        before = self.spells[name][-1]
        lowered = before.limit is None or most < before.limit
        self.spells[name][-1] = Spell(before.limit, before.begin, done + (EXCESS_US if lowered else 0))
        self.spells[name].append(Spell(most, begun))


@pytest.fixture
def workers(fleet: Fleet) -> Fleet:
    fleet.start(1, concurrency=3, ACTION_MODULES="tests.support.journal", MAX_BRANCH_CRASHES="100")
    fleet.start(1, concurrency=4, pool="threads", ACTION_MODULES="tests.support.journal", MAX_BRANCH_CRASHES="100")
    return fleet


@pytest.fixture
def client(workers: Fleet) -> Iterator[Client]:
    with running_client(workers) as running:
        running.run(CHANGE)
        yield running


@pytest.mark.timeout(1500)
def test_no_limit_is_ever_exceeded_and_no_permit_is_lost(workers: Fleet, client: Client, tmp_path: Path) -> None:
    chance, records, killed = random.Random(SEED), Records(workers), 0
    client.run("result = change('global', most)", most=MOST_GLOBAL)
    for number in range(SCENARIOS):
        scenario = make_scenario(number, chance, tmp_path / "journal")
        sessions = send(client, scenario)
        if scenario.kills:
            killed += kill_one(workers, chance)
        for name, most in scenario.changes:
            scenario.changed(*client.run("result = change(name, most)", name=name, most=most))
        results = client.run("result = [each.get(timeout=60) for each in sent]")
        assert [result["status"] for result in results] == ["succeeded"] * len(sessions), f"scenario {number}"
        found = check(scenario, sessions, results, records)
        assert not found, f"scenario {number} of seed {SEED}: {found}"
        client.run("for name in names: change(name, 0)", names=[name for name, _ in scenario.changes])
        client.run("change('global', most)", most=MOST_GLOBAL)
    assert killed >= SCENARIOS / KILL_EVERY / 2
    records.wait_nothing_live()
    with closing(redis.Redis.from_url(workers.redis_url)) as connection:
        assert not list(connection.scan_iter("*permits:*"))


def send(client: Client, scenario: Scenario) -> list[str]:
    code = "sent = [send(definitions[place], {'key': key}).delay() for place, key in sessions]\n"
    code += "result = [each.id for each in sent]"
    ids: list[str] = client.run(code, definitions=scenario.definitions, sessions=scenario.sessions)
    return ids


def kill_one(workers: Fleet, chance: random.Random) -> int:
    """`kill -9` of a pool process; the worker starts another."""
    wait_until(lambda: bool(pool_processes(workers.workers[0])), "the worker has a process")
    kill(chance.choice(pool_processes(workers.workers[0])))
    return 1


def make_scenario(number: int, chance: random.Random, journal: Path) -> Scenario:
    keys = [f"s{number}-ann", f"s{number}-bob"]
    per_key = chance.choice([None, 1, 2, 4])
    definitions = [make_workflow(f"s{number}-{n}", per_key, chance, journal) for n in range(chance.randint(1, 2))]
    sessions = [(chance.randrange(len(definitions)), chance.choice(keys)) for _ in range(chance.randint(1, 4))]
    scenario = Scenario(definitions, sessions, [], number % KILL_EVERY == KILL_EVERY - 1)
    scenario.spells["global"] = [Spell(MOST_GLOBAL)]
    for key in keys:
        scenario.spells[f"key:{key}"] = [Spell(per_key)]
    for definition in definitions:
        most = definition["limits"].get("max_concurrent_branches_of_workflow")
        scenario.spells[f"workflow:{definition['name']}"] = [Spell(most)]
    if number % CHANGE_EVERY == 0:
        names = chance.choices(list(scenario.spells), k=chance.randint(1, 3))
        scenario.changes = [(name, chance.randint(1, 6)) for name in names]
    return scenario


def make_workflow(name: str, per_key: int | None, chance: random.Random, journal: Path) -> Definition:
    """Perhaps a start, then branches and for_each side by side, then an end; limits as chance has it."""
    actions: Definition = {"first": work(chance, journal)} if chance.random() < 0.5 else {}
    roots = list(actions)
    ends = []
    for side in range(chance.randint(1, 4)):
        if chance.random() < 0.5:
            each = {**work(chance, journal), "needs": roots, "for_each": {"range": chance.randint(0, 20)}}
            if chance.random() < 0.5:
                each["max_concurrent"] = chance.randint(1, 4)
            actions[f"each{side}"] = each
            ends.append(f"each{side}")
        else:
            needs = roots
            for step in range(chance.randint(1, 3)):
                actions[f"side{side}s{step}"] = {**work(chance, journal), "needs": needs}
                needs = [f"side{side}s{step}"]
            ends += needs
    actions["last"] = {**work(chance, journal), "needs": ends}
    limits: dict[str, Any] = {
        "max_concurrent_branches": chance.randint(1, 6),
        "max_concurrent_branches_of_workflow": chance.choice([None, 1, 2, 3, 5]),
        "max_concurrent_sessions": chance.choice([None, None, 1, 2]),
        "concurrency_key": "${{ payload.key }}",
        "max_concurrent_branches_per_key": per_key,
    }
    return {"name": name, "limits": {k: v for k, v in limits.items() if v is not None}, "actions": actions}


def work(chance: random.Random, journal: Path) -> Definition:
    """Something short, plain or async."""
    uses = chance.choice(["test.record", "test.record", "test.record_async"])
    return {"uses": uses, "with": {"journal": str(journal), "seconds": chance.choice([0, 0.001, 0.004, 0.01])}}


def check(scenario: Scenario, sessions: Sequence[str], results: Sequence[Any], records: Records) -> list[str]:
    """A sentence for each breach of any limit."""
    expected = Counter(
        {session: sum(result["counts"].values()) for session, result in zip(sessions, results, strict=True)}
    )
    # a for_each counts as its items, and has a row of its own
    each = {
        n: sum("for_each" in action for action in d["actions"].values()) for n, d in enumerate(scenario.definitions)
    }
    for session, (place, _) in zip(sessions, scenario.sessions, strict=True):
        records.tasks(session, expected[session] + each[place])
    spans: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for session, action, item, started, finished in records.rows(TASKS, list(sessions)):
        place, key = scenario.sessions[list(sessions).index(session)]
        definition = scenario.definitions[place]
        if item < 0 and "for_each" in definition["actions"][action]:
            continue
        span = Span(micros(started), micros(finished), f"{action}:{item} of {session}")
        for level in ("global", f"workflow:{definition['name']}", f"key:{key}"):
            spans["level", level].append(span)
        spans["session", session].append(span)
        spans["each", f"{session} {action}"].append(span)
    found = []
    for (kind, name), those in spans.items():
        found += [f"{kind} {name}: {text}" for text in breaches(those, spells_of(scenario, sessions, kind, name))]
    for place, definition in enumerate(scenario.definitions):
        pairs = zip(sessions, scenario.sessions, strict=True)
        of_it = [spans["session", session] for session, (other, _) in pairs if other == place]
        whole = [Span(min(span.begin for span in those), max(span.end for span in those)) for those in of_it]
        found += breaches(whole, [Spell(definition["limits"].get("max_concurrent_sessions"))])
    return found


def spells_of(scenario: Scenario, sessions: Sequence[str], kind: str, name: str) -> list[Spell]:
    if kind == "level":
        return scenario.spells[name]
    session, _, action = name.partition(" ")
    definition = scenario.definitions[scenario.sessions[list(sessions).index(session)][0]]
    if kind == "session":
        return [Spell(definition["limits"]["max_concurrent_branches"])]
    return [Spell(definition["actions"][action].get("max_concurrent"))]


def micros(when: datetime) -> int:
    return round(when.timestamp() * 1_000_000)
