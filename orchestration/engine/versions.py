"""The definition cache of a process: compiled workflow versions by id.

A version is immutable, so what is cached is never wrong; names are looked up in PostgreSQL each time, so a newly
published version is used at once.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

import orjson

from orchestration.definition import load_definition
from orchestration.definition.payload import PayloadChecker
from orchestration.engine.costs import CostBook
from orchestration.errors import DefinitionError, Problem, UnknownWorkflow
from orchestration.plan import Plan, compile_plan
from orchestration.registry import load_actions
from orchestration.store import workflows
from orchestration.telemetry.metrics_memory import counters

if TYPE_CHECKING:
    from config.settings import Settings
    from orchestration.store.pool import Database

#: Compiled versions kept in a process.
KEPT = 256
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9_.-]{1,128})(@(?P<number>[0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class Version:
    """A workflow version, compiled."""

    workflow: str
    #: Number within the workflow's name, from 1.
    number: int
    plan: Plan
    #: Actions whose results some expression reads, or the end of the session.
    reads: frozenset[str]
    payload_checker: PayloadChecker
    #: What its actions have cost lately, in this process.
    costs: CostBook = field(default_factory=CostBook, compare=False)

    @property
    def version_id(self) -> str:
        return self.plan.version_id

    def check_payload(self, payload: object) -> None:
        """Raise PayloadError, naming every field that is wrong, unless the payload fits the schema."""
        self.payload_checker.check(payload)


class VersionCache:
    """Finds and compiles workflow versions for one process."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._by_id: OrderedDict[str, Version] = OrderedDict()
        self._by_content: dict[bytes, str] = {}
        self._lock = Lock()
        self._loading = Lock()

    def find(self, workflow: str | Mapping[str, object]) -> Version:
        """The version for a published name, `name@number`, or a whole definition.

        A definition that is not known yet is stored (unpublished), so that every worker can load it.
        Raises: UnknownWorkflow; DefinitionError: with all mistakes; ServiceUnreachable.
        """
        if isinstance(workflow, str):
            match = _NAMED.fullmatch(workflow)
            if match is None:
                raise UnknownWorkflow(f"{workflow[:200]!r} is no name of a workflow; expected name or name@version")
            number = int(match["number"]) if match["number"] else None
            row = workflows.find_version(self._database, match["name"], number)
            return self.load(row.version_id)
        if not isinstance(workflow, Mapping):
            raise DefinitionError([Problem(f"a workflow is a name or a definition, not {type(workflow).__name__}")])
        try:
            content = hashlib.sha256(orjson.dumps(workflow, option=orjson.OPT_SORT_KEYS)).digest()
        except orjson.JSONEncodeError as error:
            load_definition(dict(workflow), max_actions=self._settings.max_actions)  # says where
            raise DefinitionError([Problem(f"the definition is not JSON: {error}")]) from None
        known = self._by_content.get(content)
        if known is not None:
            return self.load(known)
        began_ns = time.monotonic_ns()
        self._load_actions()
        definition = load_definition(dict(workflow), max_actions=self._settings.max_actions)
        plan = compile_plan(definition)
        stored = workflows.register_version(
            self._database, definition.name, plan.version_id, definition.to_dict(), publish=False
        )
        if len(self._by_content) > KEPT:
            self._by_content.clear()
        self._by_content[content] = plan.version_id
        return self._keep(plan, stored.workflow, stored.number, began_ns)

    def load(self, version_id: str) -> Version:
        """The version with this id, compiled; from PostgreSQL the first time, by one thread while others wait for it.

        Raises: UnknownWorkflow: PostgreSQL has no such version. DefinitionError: an action of it is not known here.
        """
        version = self._known(version_id)
        if version is not None:
            counters.add("versions_cache_hits_total", 1)
            return version
        with self._loading:
            version = self._known(version_id)
            if version is not None:
                return version
            began_ns = time.monotonic_ns()
            loaded = workflows.load_version(self._database, version_id)
            self._load_actions()
            plan = compile_plan(load_definition(loaded.definition, max_actions=self._settings.max_actions))
            return self._keep(plan, loaded.workflow, loaded.number, began_ns)

    def _known(self, version_id: str) -> Version | None:
        with self._lock:
            version = self._by_id.get(version_id)
            if version is not None:
                self._by_id.move_to_end(version_id)
            return version

    def _keep(self, plan: Plan, workflow: str, number: int, began_ns: int) -> Version:
        counters.add("versions_cache_misses_total", 1)
        counters.observe("versions_cache_update_seconds", time.monotonic_ns() - began_ns)
        with self._lock:
            version = self._by_id.get(plan.version_id)
            if version is None:
                checker = PayloadChecker(plan.payload_schema)
                version = self._by_id[plan.version_id] = Version(workflow, number, plan, reads_of(plan), checker)
            while len(self._by_id) > KEPT:
                self._by_id.popitem(last=False)
            return version

    def _load_actions(self) -> None:
        load_actions(self._settings.action_modules)


def reads_of(plan: Plan) -> frozenset[str]:
    """Actions whose results are read: by an expression, or, without `output`, as the session's own."""
    names: set[str] = set()
    for action in plan.actions.values():
        names |= action.inputs.references
        if action.condition is not None:
            names |= action.condition.references
        if action.items is not None:
            names |= action.items.references
    if plan.output is not None:
        names |= plan.output.references
    else:
        names |= {leaf.name for leaf in plan.leaves if leaf.items is None}
    return frozenset(names)
