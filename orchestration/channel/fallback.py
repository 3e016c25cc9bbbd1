"""The sure way for a status update that no script sends: the stream, with retries, and else straight to PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import StrEnum

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

from orchestration.channel.parse import parse_entry
from orchestration.errors import ServiceUnreachable
from orchestration.state.stream import StatusStream
from orchestration.store.pool import Database
from orchestration.store.updates import write_rows

_log = logging.getLogger(__name__)

#: No wait between two attempts is longer, whatever the number of retries.
LONGEST_WAIT_SECONDS = 30.0


class SentBy(StrEnum):
    """Which way a status update took."""

    STREAM = "stream"
    DATABASE = "database"


def send_with_fallback(
    stream: StatusStream,
    database: Database,
    entry: Sequence[tuple[bytes, bytes]],
    *,
    max_send_retries: int,
    base_retry_delay_ms: int,
) -> SentBy:
    """The update is in the stream, or, if Redis can't be reached, in PostgreSQL.

    It may be in both when a reply of Redis was lost; rows are guarded by their sequence, so that is the same as once.
    Args: entry: fields as in the stream (parse.py), its time included. max_send_retries: attempts at the stream, 0 for
        none. base_retry_delay_ms: the wait after the first; doubles each time, plus a random part up to the first wait.
    Raises: ServiceUnreachable: neither Redis nor PostgreSQL can be reached; the caller still has the entry.
    """
    base_seconds = base_retry_delay_ms / 1000
    attempts = Retrying(
        stop=stop_after_attempt(max(1, max_send_retries)),
        wait=wait_exponential(base_seconds, max=LONGEST_WAIT_SECONDS) + wait_random(0, base_seconds),
        retry=retry_if_exception_type(ServiceUnreachable),
        reraise=True,
    )
    if max_send_retries:
        try:
            attempts(stream.append, entry)
        except ServiceUnreachable as error:
            _log.warning("status update goes straight to PostgreSQL after %d attempts: %s", max_send_retries, error)
        else:
            return SentBy.STREAM
    parsed = parse_entry("direct", entry)
    write_rows(database, parsed.tasks, parsed.branches, parsed.sessions, parsed.dead_letters)
    return SentBy.DATABASE
