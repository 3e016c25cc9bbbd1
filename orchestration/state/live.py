"""LiveState: one method per script, typed replies. The engine's only way to Redis.

What must never happen here: a decision. Scripts make transitions, the engine decides, this module translates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from orchestration.state.client import PATIENCE
from orchestration.state.patience import Keep, Patience
from orchestration.state.reading import LiveReading
from orchestration.state.records import (
    Cancelled,
    LimitChange,
    NewSession,
    Overdue,
    Reaped,
    Runner,
    Started,
    Unheeded,
)
from orchestration.state.scripts import Argument, load_script
from orchestration.state.wire import append_settlement, claim_of, overdue_of, publications_of, repairs_of
from orchestration.telemetry.probes import probed
from orchestration.vocabulary import Claim, Mode, Next, Publication, Settlement, Verdict

#: Characters that are kept of the name of who asks for something.
MOST_NAME: Final = 100
#: Longer than anybody waits for it.
HEEDED_SECONDS: Final = 3600
#: As `LEASE_SECONDS` is by default.
LEASE_US: Final = 15_000_000


class LiveState(LiveReading):
    """Live state of one namespace, for one process."""

    def __init__(self, redis_url: str, namespace: str, patience: Patience = PATIENCE) -> None:
        super().__init__(redis_url, namespace, patience)
        self._settle = load_script("settle_branch")
        self._checkpoint = load_script("checkpoint_step")

    # Sessions

    def open_session(
        self, runner: Runner, new: NewSession, lease_us: int, keep: Keep | None = None
    ) -> tuple[Verdict, tuple[Publication, ...]]:
        """Open a session with the caller as its first runner, or with a chord whose runners are to come.

        Returns: GO; ENDED when all has been settled before; QUEUED or REJECTED when as many sessions run as may;
            EXISTS when it is open already (nothing was changed); GONE when it was closed; and runners to publish.
        """
        rest: list[Argument] = []
        for action, result in new.results:
            rest += (action, result)
        for branch, queue in new.ready:
            rest += (branch, queue)
        for queue, settlement in new.settlements:
            rest.append(queue)
            append_settlement(rest, settlement)
        script = load_script("open_session")
        values = script.values(
            rest, session=runner.flow_session_id, life=runner.life, queue=runner.queue,
            worker=runner.worker, lease=lease_us, workflows=new.most_sessions, workflow=new.workflow,
            version=new.version_id, day=new.day,
            limit=new.limit, timeout=new.branch_timeout_seconds,
            weight=new.weight, priority=new.priority, attempt=new.attempt, open=new.open_branches,
            signature=new.signature, header=new.header, queues=",".join(new.queues), cap=new.item_results_cap,
            key=new.key, most_workflow=new.most_of_workflow, most_key=new.most_of_key,
            sessions_workflow=new.sessions_of_workflow, sessions_key=new.sessions_of_key, when_full=new.when_full,
            deadline=new.deadline_us, max_wait=new.max_wait_us,
            rebuilt=int(new.rebuilt), sseq=new.sseq, was_paused=int(new.was_paused),
            nr=len(new.results), nready=len(new.ready), n=len(new.settlements),
        )  # fmt: skip
        reply = script.run(self.scripts, self.space, values, keep)
        return Verdict(reply[0].decode()), publications_of(reply[1])

    def cancel_session(self, flow_session_id: str) -> Cancelled:
        """Nothing of the session can be claimed from now on, and what runs of it is told to end."""
        found, claimed, publish = load_script("cancel_session")(self.scripts, self.space, session=flow_session_id)
        return Cancelled(found.decode(), claimed, publications_of(publish))

    def pause_sessions(
        self, why: str, flow_session_ids: Sequence[str] = (), workflow: str = "", by: str = ""
    ) -> list[str]:
        """Nothing more of the sessions is claimed; what runs goes on.

        Args: why: session; or workflow or all, which also holds for sessions that are opened later. by: who asks for
            it, for people.
        Returns: what the script found of each.
        """
        found = load_script("pause_sessions")(
            self.scripts, self.space, list(flow_session_ids), why=why, workflow=workflow, by=by[:MOST_NAME]
        )
        return [word.decode() for word in found]

    def resume_sessions(
        self, why: str, flow_session_ids: Sequence[str] = (), workflow: str = ""
    ) -> tuple[list[str], tuple[Publication, ...]]:
        """Sessions paused for this reason go on; returns what the script found of each, and what to publish."""
        found, publish = load_script("resume_sessions")(
            self.scripts, self.space, list(flow_session_ids), why=why, workflow=workflow
        )
        return [word.decode() for word in found], publications_of(publish)

    def heed_cancel(self, runner: Runner) -> bool:
        """Let those know that cancelled the runner's session: it begins nothing more of what it has claimed.

        Returns: whether anybody can wait for it: not when the session goes on, or was closed.
        """
        return bool(
            load_script("heed_cancel")(
                self.scripts, self.space, session=runner.flow_session_id, life=runner.life, seconds=HEEDED_SECONDS
            )
        )

    def count_unheeded(self, flow_session_id: str) -> Unheeded:
        """What may still begin a step or an item of a cancelled session."""
        units, runners = load_script("count_unheeded")(self.scripts, self.space, session=flow_session_id)
        return Unheeded(units, runners)

    def close_session(
        self, flow_session_id: str, holder: str = "", lease_us: int = 0, *,
        day: str = "", worker: str = "", rows: bytes = b"",
    ) -> tuple[tuple[Publication, ...], bool]:  # fmt: skip
        """Remove the live state of a session that has ended.

        Args: holder: who is to deliver the result; lease_us: how long that takes at most. day, worker, rows: what is
            told of its end, unless it has been closed before.
        Returns: runners of other sessions to publish; False when another one is to deliver.
        """
        return self._close(flow_session_id, holder=holder, lease=lease_us, epoch="", day=day, worker=worker, rows=rows)

    def drop_session(self, flow_session_id: str, epoch: int) -> tuple[Publication, ...]:
        """Remove live state that can't be trusted, unless this epoch has begun; in it, the session is rebuilt."""
        return self._close(flow_session_id, holder="", lease=0, epoch=str(epoch), day="", worker="", rows=b"")[0]

    def _close(
        self, flow_session_id: str, *, holder: str, lease: int, epoch: str, day: str, worker: str, rows: bytes
    ) -> tuple[tuple[Publication, ...], bool]:
        publish, is_holder = load_script("close_session")(
            self.scripts, self.space, session=flow_session_id, holder=holder, lease=lease, epoch=epoch, day=day,
            worker=worker, rows=rows,
        )  # fmt: skip
        return publications_of(publish), bool(is_holder)

    def release_delivery(self, flow_session_id: str, holder: str) -> bool:
        """Another one may deliver the result of a session that was closed; returns False when this one was not to.

        Args: holder: how the name of whoever delivers begins (`lives_in`).
        """
        return bool(load_script("release_delivery")(self.scripts, self.space, session=flow_session_id, holder=holder))

    # Runners

    def start_runner(self, runner: Runner, lease_us: int, message: str = "") -> Started:
        """Register a runner that begins.

        Args: message: what publishes a runner of a chord session again.
        Returns: GO, or why it must not (ENDED has the signature); and runners to publish.
        """
        reply = load_script("start_runner")(
            self.scripts, self.space, session=runner.flow_session_id, runner=runner.runner, life=runner.life,
            queue=runner.queue, worker=runner.worker, lease=lease_us, message=message,
        )  # fmt: skip
        verdict, version, day, signature = (part.decode() for part in reply[:4])
        return Started(Verdict(verdict), version, day, signature, publications_of(reply[4]))

    def settle_branch(  # noqa: PLR0913 - keyword only, as the script has them
        self,
        runner: Runner,
        settlements: Sequence[Settlement],
        *,
        call: int,
        mode: Mode = Mode.GO,
        want: int = 1,
        chunks: str = "",
        elapsed_us: int = 0,
        item_results_cap: int = 0,
        keep: Keep | None = None,
    ) -> Next:
        """Record how claims ended and learn what to do next, in one round trip.

        Args: call: rises by one with each call of this runner; a repeat gets the same answer.
            want: permits to hold afterwards. chunks: most items in one claim, as `,<action>=<n>,…,`; 1 for others.
            elapsed_us: slot time used since the last call. keep: see `ScriptCaller`.
        Returns: what to do; `refused` names the units that belong to somebody else by now (nothing was written for
        them).
        """
        values: list[Argument] = [
            runner.flow_session_id, runner.runner, runner.life, runner.queue, runner.worker, mode.value, want, chunks,
            elapsed_us, call, item_results_cap, len(settlements),
        ]  # fmt: skip
        for settlement in settlements:
            append_settlement(values, settlement)
        before_ns = time.monotonic_ns()
        verdict, claims, publish, refused, signature = self._settle.run(self.scripts, self.space, values, keep)
        claimed = tuple(
            claim_of(claims[index].decode(), claims[index + 1].decode(), claims[index + 2].decode())
            for index in range(0, len(claims), 3)
        )
        if claimed:
            self.clock.observe(claimed[0].since_us, before_ns, time.monotonic_ns())
        return Next(
            Verdict(verdict.decode()),
            claimed,
            publications_of(publish) if publish else (),
            frozenset(unit.decode() for unit in refused) if refused else frozenset(),
            signature.decode(),
        )  # fmt: skip

    def flush_chunk(
        self, runner: Runner, day: str, settlement: Settlement, item_results_cap: int, keep: Keep | None = None
    ) -> tuple[bool, tuple[Publication, ...]]:
        """Settle the finished items of a chunk whose current item is slow; all behind that one are ready again.

        Args: settlement: verb items, rest KEEP: its first item that has not ended stays claimed, as `kept_claim` says.
        Returns: False when the chunk belongs to somebody else (nothing was written); runners to publish.
        """
        values: list[Argument] = [runner.flow_session_id, runner.queue, day, runner.worker, item_results_cap]
        append_settlement(values, settlement)
        done, publish = load_script("flush_chunk").run(self.scripts, self.space, values, keep)
        return bool(done), publications_of(publish)

    def send_checkpoint(
        self, runner: Runner, claim: Claim | None, day: str, action: str, result: bytes, rows: bytes,
        answered: Callable[[Any], None], keep: Keep | None = None,
    ) -> None:  # fmt: skip
        """Send the result of a settled step in the middle of a branch, without waiting for the answer.

        It is in the hands of the kernel when this returns; the death of this process undoes it only if Redis has not
        read it by then.
        Args: claim: the branch's, or None while the session is not open. answered: called with 1, or with 0 when the
            branch belongs to somebody else (nothing was written); at the latest in `await_checkpoints`.
        """
        values: list[Argument] = [
            runner.flow_session_id, claim.unit if claim else "", claim.value if claim else "", day, runner.worker,
            action, result, rows,
        ]  # fmt: skip
        self._checkpoint.send(self.scripts, self.space, values, answered, keep)

    def await_checkpoints(self) -> None:
        """Every checkpoint that this thread has sent is answered."""
        self.scripts.await_replies()

    def expire_runner(
        self, flow_session_id: str, runner: str, queue: str, worker: str, life: str = "", death: str = ""
    ) -> tuple[Publication, ...]:
        """Give up a runner of this worker whose process is dead; returns runners to publish.

        Args: life: how the life begins that is given up, where more is known of it than its worker (`lives_in`).
            death: how its process ended, for people (`death_of`).
        """
        _, publish = load_script("expire_runner")(
            self.scripts, self.space, session=flow_session_id, runner=runner, queue=queue, worker=worker,
            life=life or f"{worker}/", death=death,
        )  # fmt: skip
        return publications_of(publish)

    def resend_runners(self) -> tuple[Publication, ...]:
        """All runners that are on their way: when a process died, perhaps before it published what it was told to."""
        return publications_of(load_script("resend_runners")(self.scripts, self.space))

    # The fleet

    def beat_worker(
        self,
        worker: str,
        queues: Sequence[str],
        slots: int,
        lease_us: int,
        limit_branches: int = 0,
        limit_sessions: int = 0,
    ) -> tuple[Publication, ...]:
        """Register the worker's slots, renew its leases, set the fleet's limits; returns runners to publish."""
        reply = load_script("beat_worker")(
            self.scripts,
            self.space,
            list(queues),
            worker=worker,
            lease=lease_us,
            slots=slots,
            workflows=limit_sessions,
            **{"global": limit_branches},
        )
        return publications_of(reply)

    def set_limit(self, name: str, most: int) -> LimitChange | None:
        """An operator sets a limit, which wins over settings and definitions until it is unset.

        Args: name: global, workflow:<name>, key:<key> or session:<id>, of branches; sessions, sessions:workflow:<name>
            or sessions:key:<key>. most: 0 unsets it.
        Returns: what is in force now, and runners to publish; None when there is no such session.
        """
        found, before, now, in_use, publish = load_script("set_limit")(self.scripts, self.space, name=name, most=most)
        return LimitChange(before, now, in_use, publications_of(publish)) if found else None

    def stop_worker(self, worker: str) -> None:
        """Forget a worker that has stopped."""
        load_script("stop_worker")(self.scripts, self.space, worker=worker)

    def expire_leases(
        self, lease_us: int = LEASE_US, most: int = 100
    ) -> tuple[tuple[Publication, ...], list[str], dict[str, str]]:
        """Give up what nobody renews, unless Redis was away just now.

        Args: lease_us: how long leases last. most: runners to give up.
        Returns: runners to publish, workers forgotten, runners given up with the cause: message, lease or closed.
        """
        publish, workers, runners = load_script("expire_leases")(self.scripts, self.space, lease=lease_us, most=most)
        return (
            publications_of(publish),
            [name.decode() for name in workers],
            {name.decode(): cause.decode() for name, cause in zip(runners[::2], runners[1::2], strict=True)},
        )

    def reap_sessions(self, reaper: str, lease_us: int, most: int = 100, completions: int = 20) -> Reaped:
        """Repair open sessions that would be left alone for ever: about `most` of them, the next ones at the next call.

        Args: reaper: who calls; no other one is the reaper for `lease_us` from now on. completions: most of sessions
            that have ended to be published.
        """
        held, done, repairs, publish = load_script("reap_sessions")(
            self.scripts, self.space, reaper=reaper, lease=lease_us, most=most, completions=completions
        )
        return Reaped(bool(held), bool(done), repairs_of(repairs), publications_of(publish))

    def wake_sessions(self, most: int = 1000) -> tuple[tuple[Publication, ...], int | None, list[Overdue]]:
        """Make due units ready; stop sessions whose deadline has passed, or that were queued for too long.

        Returns: what to publish; µs until the next is due (None: nothing waits for a time); branches that have waited
            too long, to be settled by `settle_overdue`.
        """
        publish, wait, _, _, overdue = load_script("wake_sessions")(self.scripts, self.space, most=most)
        texts = [text.decode() for text in overdue]
        found = [overdue_of(texts[at : at + 8]) for at in range(0, len(texts), 8)]
        return publications_of(publish), None if wait < 0 else int(wait), found

    def settle_overdue(
        self, overdue: Overdue, settlement: Settlement, worker: str, item_results_cap: int
    ) -> tuple[bool, tuple[Publication, ...]]:
        """Settle a branch that has waited too long, with the verb done or defer.

        Returns: False when it has begun meanwhile (nothing was written); what to publish.
        """
        values: list[Argument] = [overdue.flow_session_id, overdue.queue, overdue.day, worker, item_results_cap]
        append_settlement(values, settlement)
        done, publish = load_script("settle_overdue").run(self.scripts, self.space, values)
        return bool(done), publications_of(publish)

    def take_rate(self, token: str, limits: Sequence[tuple[str, int, int]]) -> tuple[int, int]:
        """A token of each rate limit, for a call that is to begin now, or a place in their lines.

        Args: token: names the attempt of the task. limits: name, µs between two calls, calls at once after a pause.
        Returns: 0, and when it begins: µs since the epoch, by Redis. Or the µs until its turn comes: then it is to ask
            again.
        """
        values: list[Argument] = [token]
        for limit in limits:
            values += limit
        wait_us, now_us = load_script("take_rate").run(self.scripts, self.space, values)
        return int(wait_us), int(now_us)

    # Rows and results beside the scripts of a session

    def record_rows(
        self,
        flow_session_id: str,
        day: str,
        worker: str,
        rows: bytes,
        keep: Keep | None = None,
        *,
        alone: bool = False,
    ) -> bool:
        """Send rows that no other script sends.

        Args: alone: they are of a session that was never opened.
        Returns: False when it was cancelled meanwhile, or, with `alone`, when it is open or was: then nothing was sent.
        """
        values: list[Argument] = [flow_session_id, day, worker, int(alone), rows]
        return bool(load_script("record_rows").run(self.scripts, self.space, values, keep))

    def send_rows(self, flow_session_id: str, day: str, worker: str, rows: bytes) -> None:
        """Send rows of a session that was never opened, without waiting for the answer, as `send_checkpoint` does."""
        values: list[Argument] = [flow_session_id, day, worker, 1, rows]
        load_script("record_rows").send(self.scripts, self.space, values, lambda _: None)

    # What Redis may have lost (tasks/rehydration.py)

    def take_up_sessions(self, epoch: int, lost: Sequence[tuple[str, str]], lease_us: int) -> list[str] | None:
        """Which of these (session, queue) have no live state and nobody at work on them; the caller takes them up.

        Returns: them, each for one caller in `lease_us`; None when Redis is not in this epoch.
        """
        values: list[Argument] = [part for pair in lost for part in pair]
        reply = load_script("take_up_sessions")(self.scripts, self.space, values, epoch=epoch, lease=lease_us)
        return None if reply is None else [name.decode() for name in reply]

    def hold_session(self, flow_session_id: str, lease_us: int) -> None:
        """Nobody takes it up for so long: its message is on its way."""
        load_script("hold_sessions")(
            self.scripts, self.space, [flow_session_id], lease=lease_us, worker="", holder_lease=0, tasks=0, most=1
        )

    def epoch(self) -> int | None:
        """The epoch that Redis knows; None: it has lost it, with everything else."""
        found = self.client.get(self.space.key("epoch"))
        return None if found is None else int(found)

    def begin_epoch(self, epoch: int) -> None:
        """Redis is in this epoch; one that is later stays."""
        load_script("begin_epoch")(self.scripts, self.space, epoch=epoch)

    def tick(self) -> tuple[int, int | None]:
        """Count one more tick. Returns: ticks, epoch; no more than before in the same epoch: Redis has gone back."""
        pipe = self.client.pipeline(transaction=True)
        pipe.incr(self.space.key("ticks"))
        pipe.get(self.space.key("epoch"))
        ticks, epoch = pipe.execute()
        return int(ticks), None if epoch is None else int(epoch)

    def begin_look(self, seconds: float) -> bool:
        """Whether it is for the caller to look for what is lost; for one caller in so many seconds."""
        return bool(self.client.set(self.space.key("looking"), 1, nx=True, px=int(seconds * 1000)))

    @probed("redis.forget_checkpoints")
    def forget_checkpoints(self, flow_session_id: str) -> None:
        """Remove what was kept of a session that was never opened."""
        self.client.unlink(self.space.key("results", flow_session_id))
