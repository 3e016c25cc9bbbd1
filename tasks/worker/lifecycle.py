"""A worker's name, whether it is stopping, and what starts and ends with it.

The pool's children are forked from the worker, so what is set here before the fork is theirs too: the name, and one
byte of shared memory by which they learn that the worker stops.
"""

from __future__ import annotations

import gc
import importlib
import logging
import mmap
import os
import secrets
import socket
import sys
from typing import Any

import redis
from billiard import current_process
from celery import bootsteps, signals

from config.broker import is_rabbitmq
from config.logs import configure_logging
from config.settings import get_settings
from orchestration.telemetry.metrics_memory import counters
from tasks.broker import refusal
from tasks.celery_app import app
from tasks.tracing import prepare_worker
from tasks.transport import deliveries
from tasks.worker.handover import keep_handed_over
from tasks.worker.holding import HeldSessions
from tasks.worker.limits.green import is_green
from tasks.worker.lost_runners import lost_runners
from tasks.worker.partial_results import keep_partial_results
from tasks.worker.stuck import stuck_threads
from tasks.worker.upkeep_process import UpkeepProcess

_log = logging.getLogger(__name__)
UPKEEP_LOOK_SECONDS = 1.0
LOOK_SECONDS = 0.25
_stop_flag = mmap.mmap(-1, 1)
_name = ""


def worker_name() -> str:
    """`<node name>#<nonce>` inside a worker; of another process, its host and id."""
    return _name or f"{socket.gethostname()}:{os.getpid()}#-"


def stopping() -> bool:
    """Whether this worker takes no more work; also true in its children."""
    return _stop_flag[0] != 0


@signals.setup_logging.connect(weak=False)
def _logging(**_: Any) -> None:
    from tasks.worker.task_logs import ids_of_line  # noqa: PLC0415 - clients need nothing of it

    configure_logging(get_settings(), ids_of_line)


class Upkeep(bootsteps.StartStopStep):
    """Names the worker before its pool is made, mends the pool, and starts the upkeep process.

    Its slots are registered when it reads messages, seconds later (Celery first looks for its neighbours): a slot
    that was registered before would draw runners that no process takes.
    """

    requires = ("celery.worker.components:Pool",)
    process: UpkeepProcess | None = None
    _timer: Any = None

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        global _name  # noqa: PLW0603 - one worker for each process
        super().__init__(worker, **kwargs)
        _check_broker()
        _name = f"{worker.hostname}#{secrets.token_hex(4)}"
        blocks = worker.pool_cls.__module__ == "celery.concurrency.solo"
        deliveries.serve(_name, get_settings().lease_seconds, blocks=blocks)
        if blocks:
            # nobody sends them to RabbitMQ while a task runs, and it would deliver that task's message again
            worker.app.conf.broker_heartbeat = 0
        if is_green():
            importlib.import_module("tasks.worker.green_pool").adapt()
        counters.share()
        prepare_worker(_name)
        importlib.import_module("tasks.engine")  # once, before the fork: the children share its memory

    def start(self, worker: Any) -> None:
        """Start the upkeep process; it ends when this process does, however that ends."""
        queues = [str(queue) for queue in worker.app.amqp.queues.consume_from]
        Upkeep.process = UpkeepProcess(worker_name(), queues, worker.pool.num_processes or 1)
        Upkeep.process.start()
        keep_handed_over(worker.pool)
        keep_partial_results(worker.pool)
        self._timer = worker.timer.call_repeatedly(UPKEEP_LOOK_SECONDS, Upkeep.process.watch)

    def close(self, worker: Any) -> None:
        """The worker stops: the process is not started again."""
        del worker
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _check_broker() -> None:
    """A worker that RabbitMQ will never serve would ask it for ever."""
    url = get_settings().broker_url
    refused = refusal(url) if url is not None and is_rabbitmq(url) else None
    if refused is not None:
        sys.stderr.write(f"{refused}\n")
        raise SystemExit(2)


@signals.worker_process_init.connect(weak=False)
def _begin_child(**_: Any) -> None:
    """A child of the pool counts in the row of its place; the one that had it before is dead."""
    counters.use_row_of_child(getattr(current_process(), "index", 0))
    gc.freeze()  # what came from the parent stays: no collection looks through it, or copies its pages


@signals.worker_ready.connect(weak=False)
def _ready(**_: Any) -> None:
    if Upkeep.process is not None:
        Upkeep.process.open_slots()


@signals.worker_process_shutdown.connect(weak=False)
def _write_task_logs(**_: Any) -> None:
    """What actions logged last is written; also in a worker whose pool has no processes."""
    from tasks.worker.task_logs import flush_task_logs  # noqa: PLC0415 - as above

    flush_task_logs()


@signals.worker_shutdown.connect(weak=False)
def _shut_down(sender: Any = None, **_: Any) -> None:
    """The pool has stopped: what it did not end comes again, and what its branches reported is still drained."""
    try:
        deliveries.leave()
    except (redis.exceptions.RedisError, OSError) as error:
        _log.warning("what this worker did not end comes again in %g s: %s", deliveries.lease_ms / 1000, error)
    _write_task_logs()
    if Upkeep.process is not None:
        Upkeep.process.stop()
        Upkeep.process = None
    stuck_threads.leave(getattr(sender, "exitcode", None) or 0)


@signals.worker_shutting_down.connect(weak=False)
def _shutting_down(**_: Any) -> None:
    _stop_flag[0] = 1
    if Upkeep.process is not None:
        Upkeep.process.close_slots()


class ChildWatch(bootsteps.StartStopStep):
    """Finds dead pool processes within `LOOK_SECONDS`, and tells of runners whose end Redis did not take.

    Celery looks when a child closes its end of a pipe, which is a moment before it can be waited for; after a look in
    vain only the next round, up to 5 s later, sees the loss. A step of the consumer: its timer survives a reconnect.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timers: list[Any] = []

    def start(self, consumer: Any) -> None:
        """Look from now on; pools without processes have nothing to look at."""
        self._timers = [consumer.timer.call_repeatedly(UPKEEP_LOOK_SECONDS, lost_runners.tell_again)]
        look = getattr(consumer.pool, "maintain_pool", None)
        if look is not None and consumer.hub is not None:
            self._timers.append(consumer.timer.call_repeatedly(LOOK_SECONDS, look))

    def stop(self, _consumer: Any) -> None:
        """Look no more."""
        for timer in self._timers:
            timer.cancel()
        self._timers = []


app.steps["worker"].add(Upkeep)
app.steps["consumer"].add(ChildWatch)
app.steps["consumer"].add(HeldSessions)
