"""Runs flow sessions through the real engine, Redis and PostgreSQL, settling in an order that a test chooses.

What a fleet does with many processes is done here step by step: all claims that a limit allows are held at once, and
the test says which is run and settled next. So any interleaving of branches can be had, and repeated.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from config.settings import Settings, load_settings
from orchestration.channel.updater import Updater
from orchestration.engine.checkpoints import Checkpoints
from orchestration.engine.context import ProcessingContext, Stores
from orchestration.engine.finish import RunResult
from orchestration.engine.inline import InlineRun
from orchestration.engine.processor import EnhancedParallelProcessor, Fork, RunRequest
from orchestration.engine.versions import VersionCache
from orchestration.state.live import LiveState
from orchestration.state.stream import StatusStream
from orchestration.store.pool import Database
from orchestration.vocabulary import Claim, Publication, Settlement, Verdict
from tasks.worker.limits import PoolTimeLimit

QUEUE = "branches"
Choose = Callable[[Sequence[Claim]], int]


@dataclass
class RecordingLinks:
    """Keeps what the engine wants published."""

    published: list[Publication] = field(default_factory=list)
    completions: list[tuple[str, str]] = field(default_factory=list)

    def publish_runners(self, publications: Sequence[Publication]) -> None:
        self.published += publications

    def publish_completion(self, flow_session_id: str, signature: str) -> None:
        self.completions.append((flow_session_id, signature))

    def stopping(self) -> bool:
        return False

    def crowded(self, queue: str) -> bool:
        return False


class SteppingEngine:
    """An engine whose steps are taken one by one."""

    def __init__(self, redis_url: str, database_url: str, namespace: str, **settings: Any) -> None:
        self.settings: Settings = load_settings(
            redis_url=redis_url, database_url=database_url, namespace=namespace,
            action_modules=("tests.support.journal",), **settings,
        )  # fmt: skip
        self.database = Database(database_url)
        self.live = LiveState(redis_url, namespace)
        self.live.beat_worker("stepping#1", [QUEUE], 1, 3_600_000_000, 0, settings.get("max_concurrent_workflows", 0))
        self.links = RecordingLinks()
        self.stream = StatusStream(redis_url, namespace)
        self.updater = Updater(self.stream, self.database, "stepping")
        versions = VersionCache(self.database, self.settings)
        stores = Stores(self.live, self.database)
        self.processor = EnhancedParallelProcessor(
            self.settings, stores, versions, self.links, PoolTimeLimit(), "stepping#1"
        )
        # with a limit for the fleet even the first branch needs a permit, so it is never run before the session is open
        limited = self.settings.model_copy(update={"max_concurrent_branches_global": 1_000_000})
        self.forking = EnhancedParallelProcessor(limited, stores, versions, self.links, PoolTimeLimit(), "stepping#1")

    def close(self) -> None:
        """Give the connections back."""
        self.database.close()
        self.live.close()
        self.stream.close()

    def run(
        self,
        workflow: str | Mapping[str, object],
        payload: object = None,
        choose: Choose = lambda claims: 0,
        *,
        alone: int = 1,
        check: Callable[[ProcessingContext], None] = lambda context: None,
    ) -> RunResult:
        """Run a flow session to its end and return the result; its rows are in PostgreSQL then.

        Args: choose: index of the claim to run next among those held. alone: so many units are run before the session
            is opened, as the engine does with a first branch and with short forks. check: called between all steps.
        """
        request = RunRequest(str(uuid.uuid4()), workflow, payload, QUEUE)
        fork = self.forking.process_workflow_parallel(request)
        assert isinstance(fork, Fork)
        started = self._run_alone(fork, alone)
        result = started if isinstance(started, RunResult) else self._run_open(started, choose, check)
        self.updater.drain_all()
        return result

    def lose_redis(self) -> None:
        """All live state is gone, and the worker registers anew."""
        keys = list(self.live.client.scan_iter(f"{self.live.space.prefix}*"))
        if keys:
            self.live.client.delete(*keys)
        self.live.beat_worker("stepping#1", [QUEUE], 1, 3_600_000_000)

    def take_up(
        self,
        flow_session_id: str,
        choose: Choose = lambda claims: 0,
        check: Callable[[ProcessingContext], None] = lambda context: None,
    ) -> RunResult:
        """Go on with a flow session that Redis has lost, to its end."""
        fork = self.processor.take_up(RunRequest(flow_session_id, "", None, QUEUE))
        result = fork if isinstance(fork, RunResult) else self._run_open(fork, choose, check)
        self.updater.drain_all()
        return result

    def _run_alone(self, fork: Fork, units: int) -> RunResult | Fork:
        branches = self.processor.spawn_branch_processor(fork.context, fork.runner)
        inline = InlineRun(fork.context, branches, QUEUE)
        self.live.keep_clock()
        if units:
            inline.run_first_branch()
        branches.checkpoints = Checkpoints.NONE
        while inline._ready and not inline._is_handed_over and len(inline.settlements) < units:
            inline._run_next()
        fork = replace(fork, settlements=inline.settlements)
        return self.processor._end_inline(fork, inline) if inline.has_ended else fork

    def _run_open(self, fork: Fork, choose: Choose, check: Callable[[ProcessingContext], None]) -> RunResult:
        session = fork.request.flow_session_id
        verdict = self.processor.open_fork(fork, "{}")
        if verdict is Verdict.ENDED:
            return self.processor.complete_workflow(session)
        assert verdict is Verdict.GO
        context, live = fork.context, self.live
        runner = fork.runner
        branches = self.processor.spawn_branch_processor(context, runner)
        held: list[Claim] = []
        settlements: list[Settlement] = []
        call = 0
        while True:
            call += 1
            answer = live.settle_branch(
                runner, settlements, call=call, want=context.limit,
                item_results_cap=self.settings.max_item_results_bytes,
            )  # fmt: skip
            assert not answer.refused
            held += answer.claims
            assert len(held) == live.permits_in_use(session) <= context.limit
            check(context)
            if answer.verdict is Verdict.ENDED:
                assert not held
                break
            if answer.verdict is Verdict.STOP:
                # everything left waits for a time
                while not (woken := live.wake_sessions())[0]:
                    assert woken[1] is not None, "nothing is claimed, ready or deferred, and the session has not ended"
                publication = next(p for p in woken[0] if p.flow_session_id == session)
                runner = self.processor._runner(session, publication.runner, publication.queue)
                assert live.start_runner(runner, 60_000_000).verdict is Verdict.GO
                branches = self.processor.spawn_branch_processor(context, runner)
                settlements, call = [], 0
                continue
            claim = held.pop(choose(held))
            settlements = [branches.process_task_and_branches_parallel(claim)]
        return self.processor.complete_workflow(session)
