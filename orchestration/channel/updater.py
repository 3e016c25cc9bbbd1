"""The updater: drains the status stream into PostgreSQL; a thread in every worker, any number of them at once.

    read (new entries, or those of dead updaters) → write in one transaction → acknowledge and delete

What if it dies: before the commit, the entries stay pending and another updater takes them over when they have been
idle for a while; between commit and acknowledgement, they are written a second time, which changes nothing. So spans
that are made of them are sent before they are acknowledged, but for what waits too long: not for a receiver that is
away. With
PostgreSQL out of reach it keeps what it holds and tries again: nothing is lost, and the stream grows.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from orchestration.channel.parse import ParsedEntry, parse_entry
from orchestration.errors import ServiceUnreachable
from orchestration.state.stream import StatusStream, StreamEntry
from orchestration.store.pool import Database
from orchestration.store.updates import write_rows
from orchestration.telemetry.metrics_memory import counters
from orchestration.telemetry.tracing import TracedRows

_log = logging.getLogger(__name__)

#: A waiting read can't be interrupted, so it is short: `stop` is heard within this.
BLOCK_MS = 150
#: After a small batch, so that a trickle of entries is not a commit each.
LINGER_SECONDS = 0.03
MOST_BYTES = 8 * 1024 * 1024
MOST_ENTRIES = 1000
#: Entries that are written wait at most so long until their spans are sent.
HOLD_SECONDS = 2.0
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class Drained:
    """What one round of the updater did."""

    entries: int = 0
    rows: int = 0
    dead_letters: int = 0


class Spans(Protocol):
    """Makes spans of what is written, and sends them."""

    def add(self, updates: Sequence[TracedRows]) -> int:
        """Make the spans of these; returns a ticket."""

    def is_sent(self, ticket: int) -> bool:
        """Whether the spans of that ticket, and of all before, are sent."""

    def send_now(self) -> None:
        """Send what waits, if that is quick."""


@dataclass(frozen=True, slots=True)
class _Held:
    """Entries that are written and whose spans are not sent yet."""

    ids: list[str]
    ticket: int
    since: float


@dataclass(slots=True)
class _Batch:
    """Entries that are written together."""

    ids: list[str] = field(default_factory=list)
    content: ParsedEntry = field(default_factory=ParsedEntry)
    size_bytes: int = 0

    def add(self, entry: StreamEntry, size_bytes: int) -> None:
        parsed = parse_entry(entry.id, entry.fields) if entry.fields else ParsedEntry()
        self.ids.append(entry.id)
        self.size_bytes += size_bytes
        self.content.add(parsed)


class Updater:
    """Drains the stream of one namespace.

    Args: consumer_name: different for each updater, e.g. the worker's name and a nonce. batch_rows: about so many rows
        in one transaction. claim_idle_seconds: entries that another updater has held for so long are taken over.
        spans: takes what belongs to traces, once it is written.
    """

    def __init__(
        self,
        stream: StatusStream,
        database: Database,
        consumer_name: str,
        batch_rows: int = 5000,
        claim_idle_seconds: float = 30.0,
        spans: Spans | None = None,
    ) -> None:
        self._stream = stream
        self._database = database
        self._consumer = consumer_name
        self._batch_rows = batch_rows
        self._claim_idle_seconds = claim_idle_seconds
        self._spans = spans
        self._held: deque[_Held] = deque()
        self._stopping = threading.Event()
        self._next_claim = 0.0
        #: Entries to read at once, by the size of the last ones.
        self._count = 100

    def run(self) -> None:
        """Drain until `stop`; returns within 0.2 s of it, or when a write under way has ended. Never raises."""
        retry_seconds = FIRST_RETRY_SECONDS
        replayed = False
        while not self._stopping.is_set():
            try:
                if not replayed:
                    self.replay_pending()
                    replayed = True
                drained = self.drain_once(BLOCK_MS)
                retry_seconds = FIRST_RETRY_SECONDS
                if 0 < drained.rows < self._batch_rows // 10:
                    self._stopping.wait(LINGER_SECONDS)
            except Exception as error:  # noqa: BLE001 - an updater that ends would let the stream grow for ever
                # What was read stays pending, and is read again as soon as this round succeeds.
                replayed = False
                _report(error, retry_seconds)
                self._stopping.wait(retry_seconds * random.uniform(0.5, 1))  # noqa: S311 - jitter
                retry_seconds = min(retry_seconds * 2, LONGEST_RETRY_SECONDS)

    def stop(self) -> None:
        """Ask `run` to return; from another thread or a signal handler."""
        self._stopping.set()

    def drain_once(self, block_ms: int = 0) -> Drained:
        """Write what is in the stream now, about `batch_rows` rows of it, waiting `block_ms` for the first entry.

        Raises: ServiceUnreachable: what was read and not written stays pending; see `replay_pending`.
        """
        self._release()
        entries = self._take_over() or self._stream.read_batch(self._consumer, self._count, block_ms)
        return self._record(entries)

    def drain_all(self) -> Drained:
        """Write all that is in the stream, until there is nothing new.

        Raises: ServiceUnreachable: see `drain_once`.
        """
        self._release(at_once=True)
        total = self.replay_pending()
        while (drained := self.drain_once()).entries:
            total = _sum(total, drained)
        self._release(at_once=True)
        return total

    def replay_pending(self) -> Drained:
        """Write what this updater has read and not acknowledged: after a failure, or a restart under the same name."""
        total, last = Drained(), "0"
        written = {entry for held in self._held for entry in held.ids}
        while entries := self._stream.read_pending(self._consumer, self._count, last):
            total = _sum(total, self._record([entry for entry in entries if entry.id not in written]))
            last = entries[-1].id
        return total

    def _take_over(self) -> list[StreamEntry]:
        """Entries of updaters that are gone; looked for now and then."""
        now = time.monotonic()
        if now < self._next_claim:
            return []
        entries = self._stream.claim_idle(self._consumer, round(self._claim_idle_seconds * 1000), self._count)
        if not entries:
            self._next_claim = now + self._claim_idle_seconds / 2
            self._stream.forget_consumers()
        return entries

    def _record(self, entries: Sequence[StreamEntry]) -> Drained:
        total = Drained()
        for batch in self._batches(entries):
            content = batch.content
            began_ns = time.monotonic_ns()
            written = write_rows(
                self._database, content.tasks, content.branches, content.sessions, content.dead_letters
            )
            counters.observe("status_batch_rows", content.rows)
            counters.observe("status_write_seconds", time.monotonic_ns() - began_ns)
            if self._spans is not None and content.traced:
                self._held.append(_Held(batch.ids, self._spans.add(content.traced), time.monotonic()))
            else:
                self._stream.acknowledge(batch.ids)
            lost = [*content.dead_letters, *written.refused]
            for letter in lost:
                _log.error(
                    "status update %s of flow session %s is in status_dead_letters: %s",
                    letter.source, letter.flow_session_id or "?", letter.reason,
                )  # fmt: skip
            total = _sum(total, Drained(len(batch.ids), content.rows, len(lost)))
        return total

    def _release(self, *, at_once: bool = False) -> None:
        """Acknowledge entries whose spans are sent, or have waited for that long enough.

        Args: at_once: they are sent now, and all are acknowledged.
        """
        if self._spans is None:
            return
        if at_once and self._held:
            self._spans.send_now()
        while self._held:
            held = self._held[0]
            waits = time.monotonic() - held.since < HOLD_SECONDS
            if waits and not at_once and not self._spans.is_sent(held.ticket):
                return
            self._stream.acknowledge(held.ids)
            self._held.popleft()

    def _batches(self, entries: Sequence[StreamEntry]) -> Iterator[_Batch]:
        rows = size_bytes = 0
        batch = _Batch()
        for entry in entries:
            entry_bytes = sum(len(value) for _, value in entry.fields)
            if batch.ids and (batch.content.rows >= self._batch_rows or batch.size_bytes + entry_bytes > MOST_BYTES):
                yield batch
                batch = _Batch()
            before = batch.content.rows
            batch.add(entry, entry_bytes)
            rows += batch.content.rows - before
            size_bytes += entry_bytes
        if batch.ids:
            yield batch
            self._adapt(len(entries), rows, size_bytes)

    def _adapt(self, entries: int, rows: int, size_bytes: int) -> None:
        by_rows = self._batch_rows * entries // max(rows, 1)
        by_bytes = MOST_BYTES * entries // max(size_bytes, 1)
        self._count = max(1, min(by_rows, by_bytes, MOST_ENTRIES))


def _sum(one: Drained, other: Drained) -> Drained:
    return Drained(one.entries + other.entries, one.rows + other.rows, one.dead_letters + other.dead_letters)


def _report(error: Exception, retry_seconds: float) -> None:
    if isinstance(error, ServiceUnreachable):
        _log.warning("status updates wait in Redis: %s (next attempt within %.1f s)", error, retry_seconds)
    else:
        _log.exception("status updates wait in Redis (next attempt within %.1f s)", retry_seconds)
