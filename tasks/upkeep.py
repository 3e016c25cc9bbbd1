"""The upkeep process of a worker: leases, wake-ups, what is dead, the status channel.

Started by the worker (worker/upkeep_process.py), ends with it. Any number may run in a fleet; each duty is one
idempotent script or statement, so it does not matter which process does it.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import redis

from config.logs import configure_logging
from config.settings import Settings
from orchestration.channel.fallback import Fallback
from orchestration.channel.spool import Spool
from orchestration.channel.updater import HOLD_SECONDS, Updater
from orchestration.errors import DefinitionError, ServiceUnreachable, UnknownWorkflow
from orchestration.state.client import is_away
from orchestration.state.live import LiveState
from orchestration.state.patience import Patience
from orchestration.state.records import Overdue
from orchestration.state.stream import StatusStream
from orchestration.store import retention
from orchestration.store.pool import Database
from orchestration.store.samples import SAMPLE_SECONDS
from orchestration.store.totals import FOLD_SECONDS, fold_changes
from orchestration.telemetry.logs import ids_of_record
from orchestration.telemetry.metrics_memory import counters
from orchestration.telemetry.probes import probe
from tasks import canvas
from tasks.celery_app import app, usable_settings
from tasks.metrics import start_metrics
from tasks.reaper import REAP_SECONDS, Reaper
from tasks.rehydration import Rehydration
from tasks.sampler import Sampler
from tasks.sender import Sender
from tasks.tracing import channel_spans
from tasks.transport import MessageLeases, is_redis
from tasks.worker.upkeep_process import CLOSE, OPEN

if TYPE_CHECKING:
    from orchestration.engine.overdue import OverdueBranches

_log = logging.getLogger("tasks.upkeep")  # it runs as __main__
#: Deferred branches are late by at most this.
WAKE_SECONDS = 0.1
EXPIRE_SECONDS = 1.0
#: 100,000 rows a second are 4 MB in this time.
BOUND_SECONDS = 0.25
#: Within this each worker has said which messages it holds, twice (worker/holding.py).
SAY_SECONDS = 5.0
#: A loss of less than this may not be noticed.
TICK_SECONDS = 0.1
PARTITION_SECONDS = 3600.0
SPOOL_SECONDS = 5.0
TRACE_SECONDS = 1.0
#: While a service is away, that a duty can't be done is said so often.
TELL_SECONDS = 10.0
#: A duty comes again soon, and the end of the worker must be heard.
PATIENCE = Patience(is_away, repeats=3)

#: Why a runner was given up, for the log.
_GIVEN_UP = {
    "message": "its message has not come; another runner is published",
    "lease": "it did not renew its lease; its branches run again",
    "closed": "its session is no more",
}


@dataclass(slots=True)
class Duty:
    """Something to do again and again."""

    name: str
    every_seconds: float
    do: Callable[[], None]
    due: float = 0.0
    #: When it was last said that it can't be done.
    told: float = float("-inf")


class UpkeepLoop:
    """The duties of one worker's upkeep process."""

    def __init__(self, settings: Settings, worker: str, queues: Sequence[str], slots: int) -> None:
        assert settings.redis_url is not None
        assert settings.database_url is not None
        self._settings = settings
        self._worker = worker
        self._queues = queues
        self._slots = slots
        self._is_open = self._is_full = False
        self._live = LiveState(settings.redis_url, settings.namespace, PATIENCE)
        self._database = Database(
            settings.database_url, pool_size=4, statement_timeout_seconds=settings.statement_timeout_seconds,
            application_name="parallelizer-upkeep", counts=settings.metrics_enabled,
        )  # fmt: skip
        self._stream = StatusStream(settings.redis_url, settings.namespace)
        self._spans = channel_spans(self._database, worker, settings)
        self._updater = Updater(
            self._stream,
            self._database,
            worker,
            batch_rows=settings.status_batch_rows,
            claim_idle_seconds=max(settings.lease_seconds, 2 * HOLD_SECONDS),
            spans=self._spans,
        )
        spool = Spool(settings.spool_folder, settings.spool_max_bytes)
        self._fallback = Fallback(self._database, spool, settings.status_batch_rows)
        self._sender = Sender()
        self._rehydration = Rehydration(
            self._live, self._database, self._stream, max(settings.lease_seconds, SAY_SECONDS), canvas.publish_take_up,
            self._sender.send,
        )  # fmt: skip
        self._overdue: OverdueBranches | None = None
        self._messages: MessageLeases | None = None
        self._renewal = Duty("renew leases", settings.lease_seconds / 3, self.renew_leases)
        self._waking = Duty("wake sessions", WAKE_SECONDS, self.wake_sessions)
        self._duties = [
            self._renewal,
            self._waking,
            Duty("expire leases", EXPIRE_SECONDS, self.expire_leases),
            Duty("bound the status channel", BOUND_SECONDS, self.bound_channel),
            Duty("see whether Redis has gone back", TICK_SECONDS, self._rehydration.tick),
        ]
        if is_redis(settings.broker_url or settings.redis_url):
            self._duties += [
                Duty("renew the lease of messages", settings.lease_seconds / 3, self.renew_messages),
                Duty("give back messages of lost workers", EXPIRE_SECONDS, self.give_back_lost),
            ]
        reaper = Reaper(self._live, self._database, worker, self._sender.send)
        #: Each in a thread of its own: a database that answers slowly must not delay the leases.
        self._slow_duties = [
            Duty("keep partitions", PARTITION_SECONDS, self.keep_partitions),
            Duty("reap sessions", REAP_SECONDS, reaper.reap_sessions),
            Duty("replay the spool", SPOOL_SECONDS, self.replay_spool),
        ]
        if settings.metrics_enabled:
            self._slow_duties += [
                Duty("sample the fleet", SAMPLE_SECONDS, Sampler(self._live, self._database).sample),
                Duty("fold what metrics count", FOLD_SECONDS, lambda: fold_changes(self._database)),
            ]
        if self._spans is not None:
            self._slow_duties.append(Duty("tell of failures", TRACE_SECONDS, self._spans.tell_failures))

    def run(self, stopped: Callable[[float], bool]) -> None:
        """Do the duties until `stopped(seconds)`, which waits at most so long, says so; then drain the channel."""
        self._sender.start()
        end_metrics = start_metrics(self._settings, self._worker, self._slots)
        drain = threading.Thread(target=self._updater.run, name="updater")
        drain.start()
        ended = threading.Event()
        for duty in self._slow_duties:
            threading.Thread(target=self._repeat, args=(duty, ended), name=duty.name, daemon=True).start()
        threading.Thread(target=self._rehydration.run, args=(ended,), name="rehydration", daemon=True).start()
        try:
            while True:
                now = time.monotonic()
                for duty in self._duties:
                    if duty.due <= now:
                        duty.due = now + duty.every_seconds
                        self._try(duty)
                if stopped(max(0.0, min(duty.due for duty in self._duties) - time.monotonic())):
                    break
            self._try(Duty("tell that the worker stops", 0.0, lambda: self._live.stop_worker(self._worker)))
        finally:
            ended.set()
            self._updater.stop()
            self._sender.end()
            drain.join()
            self._drain_rest()
            end_metrics()
            if self._spans is not None:
                self._spans.end()
            self._database.close()

    def open_slots(self) -> None:
        """The worker takes messages from now on: it is registered with the next duties."""
        self._is_open = True
        self._renewal.due = 0.0

    def close_slots(self) -> None:
        """The worker takes no more messages; what still runs in it keeps its leases."""
        self._slots = 0
        self._renewal.due = 0.0

    def renew_leases(self) -> None:
        """The worker's slots and the runners in it live on."""
        if not self._is_open:
            return
        self._sender.send(
            self._live.beat_worker(
                self._worker, self._queues, self._slots, int(self._settings.lease_seconds * 1e6),
                self._settings.max_concurrent_branches_global, self._settings.max_concurrent_workflows,
            )
        )  # fmt: skip

    def wake_sessions(self) -> None:
        """Branches whose wait is over may run; what has waited too long is ended."""
        publications, wait_us, overdue = self._live.wake_sessions()
        if wait_us is not None:
            # on time: a call that comes late has kept others from its place
            self._waking.due = min(self._waking.due, time.monotonic() + wait_us / 1e6)
        if publications:
            probe("upkeep.woken")
        self._sender.send(publications)
        if overdue:
            self._end_overdue(overdue)

    def _end_overdue(self, overdue: Sequence[Overdue]) -> None:
        if self._overdue is None:
            # few workflows need it, and it brings the whole engine into this process (17 MB)
            from orchestration.engine.context import Stores  # noqa: PLC0415
            from orchestration.engine.overdue import OverdueBranches  # noqa: PLC0415

            self._overdue = OverdueBranches(Stores(self._live, self._database), self._settings, self._worker)
        for branch in overdue:
            try:
                self._sender.send(self._overdue.end(branch))
            except (
                DefinitionError,
                UnknownWorkflow,
            ) as error:  # others must not wait for it; another worker may know it
                _log.warning("can't end %s, which has waited too long: %s", branch.claim.unit, error)

    def expire_leases(self) -> None:
        """What nobody renews is given up; its branches run again elsewhere."""
        publications, workers, runners = self._live.expire_leases(int(self._settings.lease_seconds * 1e6))
        for worker in workers:
            _log.warning("worker %s did not renew its lease and is taken for lost", worker)
        for runner, cause in runners.items():
            session = runner.rpartition(".")[0]
            _log.warning("runner %s is given up: %s", runner, _GIVEN_UP[cause], extra={"flow_session_id": session})
        if workers or runners:
            probe("upkeep.expired")
        self._sender.send(publications)

    def renew_messages(self) -> None:
        """Messages that this worker holds stay with it."""
        self._leases_of_messages().renew(self._worker)

    def give_back_lost(self) -> None:
        """Messages that lost workers hold come again."""
        self._leases_of_messages().give_back_lost()

    def _leases_of_messages(self) -> MessageLeases:
        if self._messages is None:
            self._messages = MessageLeases.of_broker(app, self._settings.lease_seconds)
        return self._messages

    def bound_channel(self) -> None:
        """While too many status updates wait in Redis, runners claim nothing."""
        most_bytes = self._settings.status_stream_max_bytes
        size = self._stream.bound(most_bytes)
        if (size > most_bytes) != self._is_full:
            self._is_full = size > most_bytes
            said = "is full; runners wait until it is drained" if self._is_full else "has room again"
            _log.warning("the status channel %s (%d bytes)", said, size)

    def _repeat(self, duty: Duty, ended: threading.Event) -> None:
        self._try(duty)
        while not ended.wait(duty.every_seconds):
            self._try(duty)

    def keep_partitions(self) -> None:
        """Partitions of the next days exist, those of days past retention are gone."""
        retention.ensure_partitions(self._database)
        retention.drop_old_partitions(self._database, self._settings.retention_days)

    def replay_spool(self) -> None:
        """What waits on this host's disk is in PostgreSQL, and the disk is free of it."""
        self._fallback.replay_spool()

    def _drain_rest(self) -> None:
        """What the worker's last branches reported; the pool has stopped before us."""
        self._try(Duty("replay the spool", SPOOL_SECONDS, self.replay_spool))
        try:
            self._updater.drain_all()
        except (redis.exceptions.RedisError, ServiceUnreachable, OSError) as error:
            _log.warning("the status channel is not drained to the end (%s); another worker goes on", error)

    def _try(self, duty: Duty) -> None:
        try:
            duty.do()
        except (redis.exceptions.RedisError, ServiceUnreachable, OSError) as error:
            if time.monotonic() - duty.told > TELL_SECONDS:
                duty.told = time.monotonic()
                _log.warning("can't %s now: %s", duty.name, error)
        except Exception:  # noqa: BLE001 - one duty that fails must not end the others
            _log.exception("can't %s", duty.name)


def main() -> None:
    """Run until standard input is closed or the worker is gone."""
    arguments = json.loads(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the group; the worker decides when we end
    settings = usable_settings()
    configure_logging(settings, ids_of_record)
    counters.join(arguments["counters"])
    worker_pid = os.getppid()

    def stopped(seconds: float) -> bool:
        ready, _, _ = select.select([sys.stdin], [], [], min(seconds, EXPIRE_SECONDS))
        word = os.read(sys.stdin.fileno(), 1) if ready else None
        if word == OPEN:
            loop.open_slots()
        elif word == CLOSE:
            loop.close_slots()
        return word == b"" or os.getppid() != worker_pid

    loop = UpkeepLoop(settings, arguments["worker"], arguments["queues"], arguments["slots"])
    _collect_seldom()
    loop.run(stopped)


def _collect_seldom() -> None:
    """A batch of the status channel is 50,000 objects and no cycle: a third of the time went into looking for one."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


if __name__ == "__main__":
    main()
