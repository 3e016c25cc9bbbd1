"""The only `replace`, `group` and signature calls: how the engine's answers become Celery's primitives.

The runners of a session are a Celery group; what follows when its branches have settled, a chord's body, is parked in
the session as the very signature that Celery's `replace` makes: with the caller's task id, callbacks, chain, group
and chord. Redis counts the branches; whoever settles the last one publishes the signature. So `.get()`, `chain`,
`group`, `chord` and `link` see one ordinary task that ends when the workflow ends. Celery's own chord would count
messages, can't stay open while a session waits with no message under way, and hangs when a part is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from celery import Task, group, signature
from celery.exceptions import Ignore
from kombu.utils import json

from config.celery_config import TOUR_SECONDS
from config.settings import get_settings
from orchestration.errors import ServiceUnreachable
from orchestration.vocabulary import Publication, Verdict
from tasks.celery_app import app

if TYPE_CHECKING:
    from orchestration.engine.processor import EnhancedParallelProcessor, Fork


_log = logging.getLogger(__name__)

#: Name of the runner's task; sent by name, so that who sends it need not load the engine.
RUN_BRANCHES = "tasks.run_branches"
#: What can be done again later is not failed because PostgreSQL is away: about ten minutes of attempts.
RIDE_OUT: Final = {
    "autoretry_for": (ServiceUnreachable,),
    "retry_backoff": 1,
    "retry_backoff_max": 30,
    "retry_jitter": True,
    "max_retries": 25,
}


class ProcessorTask(Task):
    """Base of our tasks."""

    abstract = True
    Request = "tasks.worker.request:ProcessorRequest"

    def on_replace(self, sig: Any) -> NoReturn:
        """Park the signature that stands for this task from now on, open the session, and go on as its first runner."""
        processor, fork = self.request.fork
        del self.request.fork
        if processor.open_fork(fork, json.dumps(sig)) is Verdict.GO:
            try:
                processor.run_fork(fork)
            except Exception:  # noqa: BLE001 - a failure would be taken for the run's, which goes on without this runner
                _log.exception("[PARALLELIZER] the first runner of %s can't go on", fork.request.flow_session_id)
                processor.give_up(fork.runner)
        raise Ignore("the flow session goes on; its completion has this task's id")


def fork_here(task: ProcessorTask, processor: EnhancedParallelProcessor, fork: Fork, completion: Any) -> NoReturn:
    """Replace the running task by `completion`, to be published when the session has ended."""
    task.request.fork = (processor, fork)
    task.replace(completion)
    raise AssertionError("replace always raises")


def publish_runners(publications: Sequence[Publication]) -> None:
    """Send the runners, as a group where they are several."""
    if not publications:
        return
    messages = [_runner_message(publication) for publication in publications]
    if len(messages) == 1:
        messages[0].apply_async(add_to_parent=False)
    else:
        group(messages).apply_async(add_to_parent=False)


def _runner_message(publication: Publication) -> Any:
    # Behind the branch's own timer: Celery ends a runner that takes longer than a tour and a branch can.
    soft = publication.branch_timeout_seconds + TOUR_SECONDS
    return app.signature(RUN_BRANCHES, (publication.flow_session_id, publication.queue), immutable=True).set(
        task_id=publication.runner, queue=publication.queue, soft_time_limit=soft,
        time_limit=soft + get_settings().branch_grace_seconds,
    )  # fmt: skip


def publish_completion(text: str) -> None:
    """Send a parked signature."""
    signature(json.loads(text), app=app).apply_async(add_to_parent=False)
