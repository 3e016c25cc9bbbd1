"""The only `replace`, `group`, `chord` and signature calls: how the engine's answers become Celery's primitives.

What follows when the branches of a session have settled is the very signature that Celery's `replace` makes of the
completion: with the caller's task id, callbacks, chain, group and chord. So `.get()`, `chain`, `group`, `chord` and
`link` see one ordinary task that ends when the workflow ends. There are two dispatchers:

- *counted*: the signature is parked in the session. Redis counts the branches; whoever settles the last one publishes
  the signature. Runners are a group, as many as there are free slots. It needs a message less than a chord, can stay
  open while no message of the session is under way, and does not hang when a part is lost.
- *chord*: the caller is replaced by `chord(group(runners), completion)`, as Celery's users would write it. A task of
  the header must count exactly once, when the session has ended. So a runner that leaves before does not return: it has
  kept its own replacement, with its id, group and place in the chord, in the session, and whoever has a slot for the
  session publishes that: a `self.replace` with the same id, put off until there is work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

import redis
from celery import Task, chord, group, signature
from celery.app.task import Context
from celery.exceptions import Ignore, Reject
from celery.states import SUCCESS
from kombu.exceptions import OperationalError
from kombu.utils import json

from config.celery_config import TOUR_SECONDS
from config.settings import get_settings
from orchestration.errors import ServiceUnreachable
from orchestration.telemetry.probes import probe, probed
from orchestration.vocabulary import Publication, Verdict
from tasks.broker import queue_of
from tasks.celery_app import app

if TYPE_CHECKING:
    from orchestration.engine.processor import EnhancedParallelProcessor, Fork


_log = logging.getLogger(__name__)

#: Name of the runner's task; sent by name, so that who sends it need not load the engine.
RUN_BRANCHES = "tasks.run_branches"
#: Name of the task that goes on with a session which Redis has lost.
TAKE_UP = "tasks.take_up_workflow"
#: What can be done again later is not failed because PostgreSQL is away: about ten minutes of attempts. Each waits for
#: half of 30 s in the mean, since the whole wait is random. Redis is waited for in place, unless the worker stops.
RIDE_OUT: Final[dict[str, Any]] = {
    "autoretry_for": (ServiceUnreachable, redis.exceptions.RedisError),
    "retry_backoff": 1,
    "retry_backoff_max": 30,
    "retry_jitter": True,
    "max_retries": 45,
}
#: A run that was accepted is completed, however long that takes.
COMPLETE_AT_LAST: Final[dict[str, Any]] = {**RIDE_OUT, "max_retries": None}
#: What Celery raises when the broker or the result back end is away.
AWAY: Final = (OperationalError, redis.exceptions.RedisError, OSError)
#: Between two attempts to count a runner of a chord whose session has ended.
COUNT_AGAIN_SECONDS: Final = 1
#: A runner of a chord that leaves so is at its end: its session has ended.
OVER: Final = (Verdict.ENDED, Verdict.GONE, Verdict.REDUNDANT)


def is_away(error: Exception) -> bool:
    """Whether the broker did not take a message, and may later."""
    return isinstance(error, AWAY)


class ProcessorTask(Task):
    """Base of our tasks."""

    abstract = True
    Request = "tasks.worker.request:ProcessorRequest"

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called when the result is stored."""
        if not self.ignore_result:
            probe("result.stored")
        super().on_success(retval, task_id, args, kwargs)

    def on_replace(self, sig: Any) -> Any:
        """Send what replaces this task, or give it back where it is to be kept (`_replacement_of`)."""
        return sig if self.request.get("keeps_replacement") else super().on_replace(sig)

    def signature_from_request(self, request: Any = None, *args: Any, queue: str | None = None, **options: Any) -> Any:
        """As Celery's, to the queue itself: what has waited in RabbitMQ came from another address."""
        of = self.request if request is None else request
        return super().signature_from_request(request, *args, queue=queue or queue_of(of.delivery_info), **options)

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """Come again later.

        Raises: Retry, as Celery's. Reject: the message itself comes again: Redis is away and the worker stops, so the
            state of the task can't be stored either; or the broker is, where Celery would drop the message.
        """
        error = kwargs.get("exc")
        if isinstance(error, redis.exceptions.RedisError):
            raise Reject(error, requeue=True)
        try:
            return super().retry(*args, **kwargs)
        except Reject as rejected:
            raise Reject(rejected.reason, requeue=True) from None


def _replacement_of(task: ProcessorTask, by: Any) -> str:
    """`by` as it stands for the running task from now on: with its id, callbacks, chain, group and chord."""
    task.request.keeps_replacement = True
    try:
        return str(json.dumps(task.replace(by)))
    finally:
        del task.request.keeps_replacement


def fork_here(task: ProcessorTask, processor: EnhancedParallelProcessor, fork: Fork, completion: Any) -> NoReturn:
    """Open the session with its completion parked; go on as its first runner, or be replaced by its chord."""
    verdict = processor.open_fork(fork, _replacement_of(task, completion.clone()))
    if verdict is Verdict.CHORD:
        _replace_by_chord(task, processor, fork, completion)
    if verdict is Verdict.GO:
        try:
            processor.run_fork(fork)
        except Exception:  # noqa: BLE001 - a failure would be taken for the run's, which goes on without this runner
            _log.exception("the first runner of %s can't go on", fork.request.flow_session_id)
            _give_up(processor, fork)
    raise Ignore("the flow session goes on; its completion has this task's id")


def _give_up(processor: EnhancedParallelProcessor, fork: Fork) -> None:
    try:
        processor.give_up(fork.runner)
    except AWAY as error:
        _log.warning("what it held waits until its lease is over: %s", error)


class ForkElsewhere:
    """`fork_here` in another thread than that of the task, which is stuck in an action of the session's first branch.

    Args: completion: makes it.
    """

    def __init__(
        self, task: ProcessorTask, processor: EnhancedParallelProcessor, completion: Callable[[], Any]
    ) -> None:
        self._task = task
        self._request = task.request
        self._processor = processor
        self._completion = completion
        self._error: Exception | None = None

    def __call__(self, fork: Fork) -> None:
        """Open the session; called in the other thread.

        Raises: what keeps it from being opened; the task raises it too, as soon as it can.
        """
        self._task.request_stack.push(self._request)
        try:
            fork_here(self._task, self._processor, fork, self._completion())
        except Ignore:
            pass
        except Exception as error:
            self._error = error
            raise
        finally:
            self._task.request_stack.pop()

    def raise_end(self) -> NoReturn:
        """End the task, in its own thread.

        Raises: Ignore: the session goes on. What kept it from being opened.
        """
        raise self._error or Ignore("the flow session goes on; its completion has this task's id")


def publish_runners(publications: Sequence[Publication]) -> None:
    """Send the runners: those of a chord as what they are a part of, others as a group where they are several.

    What has no runner is the completion of a session that was cancelled.
    """
    if publications:
        _send_runners(publications)


@probed("publish.runners")
def _send_runners(publications: Sequence[Publication]) -> None:
    for publication in publications:
        if not publication.runner:
            publish_completion(publication.message)
        elif publication.message:
            _parked_message(publication).apply_async(add_to_parent=False)
    messages = [_runner_message(publication) for publication in publications if not publication.message]
    if len(messages) == 1:
        messages[0].apply_async(add_to_parent=False)
    elif messages:
        group(messages).apply_async(add_to_parent=False)


@probed("publish.completion")
def publish_completion(text: str) -> None:
    """Send a parked signature."""
    signature(json.loads(text), app=app).apply_async(add_to_parent=False)


def _runner_message(publication: Publication, header: int = 0) -> Any:
    arguments = (publication.flow_session_id, publication.queue, *([header] if header else []))
    message = app.signature(RUN_BRANCHES, arguments, immutable=True).set(task_id=publication.runner)
    return _set_delivery(message, publication)


def _set_delivery(message: Any, publication: Publication) -> Any:
    # Behind the branch's own timer: Celery ends a runner that takes longer than a tour and a branch can.
    soft = publication.branch_timeout_seconds + TOUR_SECONDS
    return message.set(
        queue=publication.queue, soft_time_limit=soft, time_limit=soft + get_settings().branch_grace_seconds
    )


# Sessions that are taken up again


def call_of(request: Any, queue: str, *, raise_on_failure: bool) -> str:
    """What follows the end of this run, as JSON: with its task id, all that `publish_take_up` needs.

    The same parts of a request that Celery's `replace` hands on.
    """
    call = {
        "namespace": get_settings().namespace, "queue": queue, "raise_on_failure": raise_on_failure,
        "link": request.callbacks, "link_error": request.errbacks,
        "chain": request.chain, "chord": request.chord, "group_id": request.group, "group_index": request.group_index,
        "root_id": None if request.root_id == request.id else request.root_id,
    }  # fmt: skip
    return str(json.dumps({name: value for name, value in call.items() if value is not None and value is not False}))


@probed("publish.take_up")
def publish_take_up(flow_session_id: str, celery_task_id: str, call: Mapping[str, Any]) -> None:
    """Send the message that goes on with a session: it stands for the caller's task, as that did."""
    options = {name: value for name, value in call.items() if name != "namespace"}
    failing = {"raise_on_failure": bool(options.pop("raise_on_failure", False))}
    message = app.signature(TAKE_UP, (flow_session_id,), failing, immutable=True)
    message.apply_async(task_id=celery_task_id, add_to_parent=False, **options)


# The chord


def run_in_header(
    task: ProcessorTask, processor: EnhancedParallelProcessor, flow_session_id: str, queue: str, size: int
) -> None:
    """Run branches as a task in the header of a chord of `size` runners; return when the session has ended.

    Raises: Ignore: it has not ended; the task is published again when there is work for it. Retry: the broker is away.
    """
    try:
        message = _replacement_of(task, task.si(flow_session_id, queue, size))
        verdict = processor.process_branches_parallel(flow_session_id, task.request.id, queue, message)
    except Exception:  # noqa: BLE001 - to Celery, a failed part fails the chord
        _log.exception("runner %s can't go on", task.request.id)
        raise Ignore("given up; a task in a header must not fail") from None
    if verdict not in OVER:
        raise Ignore("the flow session goes on; this task is published again when there is work for it")
    own = int(task.request.id.rpartition(".")[2])
    # who ended the session counts them all: those that are parked can't, and messages may be lost
    _count(task, range(1, size + 1) if verdict is Verdict.ENDED else [own])


def _count(task: ProcessorTask, numbers: Iterable[int]) -> None:
    """Tell Celery's chord that these runners have ended; it takes each once, however often it is told.

    The running task is told too, before it returns: Celery itself makes a failed part of one that it can't store.
    """
    request = task.request
    session = request.id.rpartition(".")[0]
    try:
        for number in numbers:
            probe("chord.count")
            part = Context(id=f"{session}.{number}", group=request.group, group_index=number - 1, chord=request.chord)
            task.backend.on_chord_part_return(part, SUCCESS, None)
    except AWAY as error:
        raise task.retry(exc=error, countdown=COUNT_AGAIN_SECONDS) from error


def _replace_by_chord(
    task: ProcessorTask, processor: EnhancedParallelProcessor, fork: Fork, completion: Any
) -> NoReturn:
    session, queue = fork.request.flow_session_id, fork.request.queue
    size = processor.header_of(session)
    timeout = fork.context.branch_timeout_seconds
    runners = [Publication(session, f"{session}.{number}", queue, timeout) for number in range(1, size + 1)]
    replacement = chord([], completion)
    # named after the session: when this message comes again, the same chord is published, and its parts count once
    replacement.tasks = group([_runner_message(runner, size) for runner in runners], task_id=f"{session}.header")
    probe("publish.chord.before")
    try:
        task.replace(replacement)
    except Ignore:
        probe("publish.chord.after")
        raise
    except AWAY as error:
        raise ServiceUnreachable(f"the chord of {session} can't be published: {error}") from error
    raise AssertionError("replace always raises")


def _parked_message(publication: Publication) -> Any:
    """The replacement that a runner made of itself, for the queue that has work for it."""
    message = signature(json.loads(publication.message), app=app)
    session, _, size = message.args
    message.args = (session, publication.queue, size)
    return _set_delivery(message, publication)
