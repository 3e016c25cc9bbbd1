"""The status stream in Redis: append, read as one of a group of consumers, acknowledge and delete, take over.

`channel` calls this. The client is one of its own: replies stay as they come (the driver would make a dict of an entry
and lose its repeated fields), and nothing is retried here, so that the updater can stop at any moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestration.errors import ServiceUnreachable
from orchestration.state.client import place
from orchestration.state.keys import KeySpace
from orchestration.telemetry.probes import probed

GROUP = "updaters"
#: A consumer that read nothing for so long and holds nothing is forgotten.
CONSUMER_FORGOTTEN_MS = 86_400_000
#: Nobody looks any more: runners go on after this.
FULL_MS = 2000
_RAW_REPLIES = ("XREADGROUP", "XAUTOCLAIM", "XPENDING")

Field = tuple[bytes, bytes]


class StreamEntry(NamedTuple):
    """One entry: its id, and its fields in order, repeated ones too; none if it was deleted meanwhile."""

    id: str
    fields: list[Field]


class StatusStream:
    """The stream of one namespace; safe for threads and forks.

    All methods raise ServiceUnreachable when Redis does not answer; whether an `append` took effect is then not known.
    """

    def __init__(self, redis_url: str, namespace: str, timeout_seconds: float = 5.0) -> None:
        self._place = place(redis_url)
        self._key = KeySpace(namespace).key("status")
        self._full_key = KeySpace(namespace).key("status_full")
        self._client: Any = redis.Redis.from_url(
            redis_url,
            protocol=2,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=min(timeout_seconds, 2.0),
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
        )
        for command in _RAW_REPLIES:
            self._client.set_response_callback(command, lambda reply, **_: reply)

    def append(self, fields: Iterable[tuple[str | bytes, str | bytes]]) -> str:
        """Add an entry; field names may repeat. Returns its id."""
        with self._reaching():
            reply = self._client.execute_command("XADD", self._key, "*", *(part for pair in fields for part in pair))
        return _text(reply)

    def read_batch(self, consumer: str, count: int, block_ms: int) -> list[StreamEntry]:
        """At most `count` new entries, this consumer's until acknowledged; waits `block_ms` for the first (0: not)."""
        block = ("BLOCK", block_ms) if block_ms > 0 else ()
        return self._read(consumer, count, block, ">")

    def read_pending(self, consumer: str, count: int, after: str = "0") -> list[StreamEntry]:
        """Entries that this consumer read and did not acknowledge, after the id `after`."""
        return self._read(consumer, count, (), after)

    @probed("redis.acknowledge_updates")
    def acknowledge(self, ids: Sequence[str]) -> None:
        """The entries are done and gone from the stream, whoever had read them."""
        if ids:
            with self._reaching():
                pipeline = self._client.pipeline(transaction=True)
                pipeline.execute_command("XACK", self._key, GROUP, *ids)
                pipeline.execute_command("XDEL", self._key, *ids)
                pipeline.execute()

    def claim_idle(self, consumer: str, idle_ms: int, count: int) -> list[StreamEntry]:
        """Entries that other consumers have held for `idle_ms`: now this consumer's. The oldest, at most `count`."""
        with self._reaching():
            reply = self._in_group("XAUTOCLAIM", self._key, GROUP, consumer, idle_ms, "0-0", "COUNT", count)
        return _entries(reply[1])

    def forget_consumers(self) -> None:
        """Consumers that are long gone and hold nothing are no longer listed."""
        with self._reaching():
            for consumer in self._client.xinfo_consumers(self._key, GROUP):
                if consumer["pending"] == 0 and consumer["idle"] > CONSUMER_FORGOTTEN_MS:
                    self._client.xgroup_delconsumer(self._key, GROUP, consumer["name"])

    def length(self) -> int:
        """Entries that are not yet recorded."""
        with self._reaching():
            return int(self._client.xlen(self._key))

    def oldest_age_seconds(self) -> float:
        """For how long the oldest entry has not been recorded, by Redis's clock; 0: there is none."""
        with self._reaching():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.time()
            pipeline.execute_command("XRANGE", self._key, "-", "+", "COUNT", 1)
            (seconds, microseconds), entries = pipeline.execute()
        if not entries:
            return 0.0
        began_ms = int(_text(entries[0][0]).partition("-")[0])
        return max(0.0, float(seconds) + float(microseconds) / 1e6 - began_ms / 1e3)

    def newest(self) -> str | None:
        """The id of the newest entry that is not yet recorded; None: there is none."""
        with self._reaching():
            entries = self._client.execute_command("XREVRANGE", self._key, "+", "-", "COUNT", 1)
        return _text(entries[0][0]) if entries else None

    def is_recorded(self, up_to: str) -> bool:
        """Whether the entry of this id, and all before it, are recorded."""
        with self._reaching():
            return not self._client.execute_command("XRANGE", self._key, "-", up_to, "COUNT", 1)

    def pending(self) -> int:
        """Entries that were read and not yet acknowledged."""
        with self._reaching():
            return int(self._in_group("XPENDING", self._key, GROUP)[0])

    def bound(self, most_bytes: int) -> int:
        """Runners claim nothing while the stream is larger than this, until it has shrunk to four fifths of it.

        To be called again and again, at least twice in `FULL_MS`. Returns: about how large it is.
        """
        with self._reaching():
            size = int(self._client.execute_command("MEMORY", "USAGE", self._key, "SAMPLES", 10) or 0)
            if size > most_bytes:
                self._client.set(self._full_key, 1, px=FULL_MS)
            elif size > most_bytes * 4 // 5:
                self._client.pexpire(self._full_key, FULL_MS)
            else:
                self._client.unlink(self._full_key)
        return size

    def close(self) -> None:
        """Connections are closed; another call opens one again."""
        self._client.close()

    def _read(self, consumer: str, count: int, block: Sequence[Any], after: str) -> list[StreamEntry]:
        with self._reaching():
            reply = self._in_group(
                "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, *block, "STREAMS", self._key, after
            )
        return _entries(reply[0][1]) if reply else []

    def _in_group(self, *command: Any) -> Any:
        """Run a command of the group, making the group where there is none: at first, and after Redis lost its data."""
        try:
            return self._client.execute_command(*command)
        except redis.exceptions.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
        try:
            self._client.xgroup_create(self._key, GROUP, id="0", mkstream=True)
        except redis.exceptions.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        return self._client.execute_command(*command)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (redis.exceptions.RedisError, OSError) as error:
            raise ServiceUnreachable(
                f"Redis at {self._place} does not answer ({error}); start it or correct REDIS_URL"
            ) from error


def _entries(reply: Iterable[Any]) -> list[StreamEntry]:
    return [
        StreamEntry(_text(found[0]), list(zip(found[1][::2], found[1][1::2], strict=True)) if found[1] else [])
        for found in reply
        if found is not None
    ]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
