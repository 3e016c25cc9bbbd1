"""The engine of this process, and its links to Celery."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from orchestration.engine.context import Stores
from orchestration.engine.processor import EnhancedParallelProcessor
from orchestration.engine.versions import VersionCache
from orchestration.state.client import connect
from orchestration.state.live import LiveState
from orchestration.store.pool import Database
from orchestration.vocabulary import Publication
from tasks import canvas
from tasks.celery_app import usable_settings
from tasks.worker import lifecycle
from tasks.worker.limits import PoolTimeLimit
from tasks.worker.stuck import stuck_threads

_processor: EnhancedParallelProcessor | None = None
_owner = 0
_making = threading.Lock()


class CeleryLinks:
    """What the engine asks of the message layer, by Celery."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url if urlsplit(broker_url).scheme in ("redis", "rediss", "unix") else None

    def publish_runners(self, publications: Sequence[Publication]) -> None:
        """Send the messages of these runners."""
        canvas.publish_runners(publications)

    def publish_completion(self, flow_session_id: str, signature: str) -> None:
        """Send the parked completion of a session that has ended."""
        del flow_session_id
        canvas.publish_completion(signature)

    def stopping(self) -> bool:
        """Whether this worker is to take no more work."""
        return lifecycle.stopping()

    def crowded(self, queue: str) -> bool:
        """Whether a message waits in the broker for a process of this queue; on RabbitMQ nobody knows cheaply."""
        return self._broker_url is not None and bool(connect(self._broker_url).llen(queue))


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
    )  # fmt: skip
    stores = Stores(LiveState(settings.redis_url, settings.namespace), database)
    return EnhancedParallelProcessor(
        settings, stores, VersionCache(database, settings), CeleryLinks(settings.broker_url or settings.redis_url),
        PoolTimeLimit(settings.branch_grace_seconds, stuck_threads), lifecycle.worker_name(),
    )  # fmt: skip
