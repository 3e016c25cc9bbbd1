"""What a retry of a run needs of Celery and Redis: the message that takes it up, sent by nobody else as well."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

from config.settings import Settings
from orchestration.engine.control import Answer
from orchestration.engine.retry import retry_session
from orchestration.state.client import RedisError
from orchestration.state.live import LiveState
from orchestration.state.stream import StatusStream
from orchestration.store.pool import Database
from tasks import canvas
from tasks.rehydration import TAKE_UP_SECONDS

_log = logging.getLogger(__name__)


def retry_with(settings: Settings, database: Database, live: LiveState, flow_session_id: str) -> Answer:
    """Retry a run; see `tasks.retry_session`."""
    assert settings.redis_url is not None

    def send(retry: str, task_id: str, call: Mapping[str, Any]) -> bool:
        try:
            canvas.publish_take_up(retry, task_id, call)
        except canvas.AWAY as error:
            _log.warning("the message of %s can't be sent now: %s", retry, error, extra={"flow_session_id": retry})
            return False
        with suppress(RedisError):  # else it may be sent a second time, which does no harm
            live.hold_session(retry, int(TAKE_UP_SECONDS * 1e6))
        return True

    with closing(StatusStream(settings.redis_url, settings.namespace)) as stream:
        return retry_session(database, stream, settings.namespace, send, flow_session_id)
