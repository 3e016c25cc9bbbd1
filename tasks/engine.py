"""The engine of this process, and its links to Celery."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import cache

from config.broker import redis_url_of
from orchestration.channel.fallback import Fallback
from orchestration.channel.spool import Spool
from orchestration.engine.context import Stores, is_database_away
from orchestration.engine.processor import EnhancedParallelProcessor
from orchestration.engine.versions import VersionCache
from orchestration.state.client import connect, is_away
from orchestration.state.live import LiveState
from orchestration.state.patience import Patience
from orchestration.store.pool import Database
from orchestration.vocabulary import Publication
from tasks import canvas
from tasks.broker import QueueLengths
from tasks.celery_app import usable_settings
from tasks.transport import held_copies
from tasks.worker import lifecycle, task_logs
from tasks.worker.limits import PoolTimeLimit
from tasks.worker.stuck import stuck_threads

_processor: EnhancedParallelProcessor | None = None
_owner = 0
_making = threading.Lock()


#: For what can be left out.
_NO_PATIENCE = Patience(is_away, repeats=0)


class CeleryLinks:
    """What the engine asks of the message layer, by Celery.

    Args: patience: how long it waits for a broker that is away; a message that is sent twice does no harm.
    """

    def __init__(self, broker_url: str, patience: Patience) -> None:
        self._lengths = QueueLengths(broker_url)
        self._patience = patience

    def publish_runners(self, publications: Sequence[Publication]) -> None:
        """Send the messages of these runners."""
        if publications:
            self._patience.run(lambda: canvas.publish_runners(publications))

    def publish_completion(self, flow_session_id: str, signature: str) -> None:
        """Send the parked completion of a session that has ended."""
        del flow_session_id
        self._patience.run(lambda: canvas.publish_completion(signature))

    def stopping(self) -> bool:
        """Whether this worker is to take no more work."""
        return lifecycle.stopping()

    def crowded(self, queue: str) -> bool:
        """Whether a message waits in the broker for a process of this queue."""
        return not self._lengths.is_empty(queue)


@cache
def get_hasty_live() -> LiveState:
    """Live state for a worker's main process, which must not wait: a call is repeated once.

    Raises: WrongSetting: see `get_processor`.
    """
    settings = usable_settings()
    assert settings.redis_url is not None
    return LiveState(settings.redis_url, settings.namespace, _NO_PATIENCE)


def has_copy_at_work(task: str, task_id: str) -> bool:
    """Whether a worker holds another copy of the message that is at work here; beside Redis nobody knows.

    Raises: RedisError: the broker is away, and this process is to stop.
    """
    settings = usable_settings()
    broker = settings.broker_url or settings.redis_url
    assert broker is not None
    url = redis_url_of(broker)
    return url is not None and held_copies(connect(url, _patience(is_away)), task, task_id) > 1


def get_processor() -> EnhancedParallelProcessor:
    """The engine of this process; a forked child makes its own.

    Raises: WrongSetting: REDIS_URL or DATABASE_URL is missing.
    """
    global _processor, _owner
    if _processor is None or _owner != os.getpid():
        with _making:
            if _processor is None or _owner != os.getpid():
                _processor, _owner = _make(), os.getpid()
    return _processor


def _make() -> EnhancedParallelProcessor:
    settings = usable_settings()
    assert settings.redis_url is not None
    assert settings.database_url is not None
    database = Database(
        settings.database_url, pool_size=settings.database_pool_size,
        statement_timeout_seconds=settings.statement_timeout_seconds, application_name="parallelizer-worker",
        counts=settings.metrics_enabled,
    )  # fmt: skip

    live = LiveState(settings.redis_url, settings.namespace, _patience(is_away))
    fallback = Fallback(database, Spool(settings.spool_folder, settings.spool_max_bytes), settings.status_batch_rows)
    stores = Stores(live, database, fallback, _patience(is_database_away))
    task_logs.keep(database, settings)
    links = CeleryLinks(settings.broker_url or settings.redis_url, _patience(canvas.is_away))
    return EnhancedParallelProcessor(
        settings, stores, VersionCache(database, settings), links,
        PoolTimeLimit(settings.branch_grace_seconds, stuck_threads), lifecycle.worker_name(),
    )  # fmt: skip


@cache
def _patience(is_away: Callable[[Exception], bool]) -> Patience:
    settings = usable_settings()
    return Patience(is_away, settings.max_send_retries, settings.base_retry_delay_ms / 1000, _goes_on)


def _goes_on() -> bool:
    """Whether what is finished waits on in this process for a service that is away."""
    return not lifecycle.stopping()
