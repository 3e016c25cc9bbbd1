"""Where status updates go that Redis does not take: straight to PostgreSQL, else to the spool.

A worker's process comes here when Redis has not taken a settlement in `MAX_SEND_RETRIES` repetitions. It keeps the
settlement and goes on trying; but what it has finished is on record by then, should it die. When Redis takes it after
all, the same rows come through the stream once more: they are guarded by their sequence, so that is the same as once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from orchestration.channel.parse import Fields, ParsedEntry, entry_text, parse_entry, parse_text
from orchestration.channel.spool import Replayed, Spool
from orchestration.errors import ServiceUnreachable, SpoolFull
from orchestration.store.pool import Database
from orchestration.store.updates import write_rows
from orchestration.telemetry.metrics_memory import counters
from orchestration.telemetry.probes import probed

_log = logging.getLogger(__name__)


class Fallback:
    """The ways round the stream, for one process."""

    def __init__(self, database: Database, spool: Spool, batch_rows: int = 5000) -> None:
        self._database = database
        self._spool = spool
        self._batch_rows = batch_rows

    @probed("fallback.keep")
    def keep(self, fields: Fields) -> None:
        """The update is in PostgreSQL, or in the spool. With neither, that is logged: the caller still has it.

        Args: fields: as in the stream (parse.py), its time included.
        """
        every = list(fields)
        try:
            self._write(parse_entry("direct", every))
        except ServiceUnreachable as error:
            try:
                self._spool.append(entry_text(every))
            except (SpoolFull, OSError) as full:
                counters.add("fallbacks_total", 1, "memory")
                _log.error("a status update is in memory only: %s; %s", error, full)
            else:
                counters.add("fallbacks_total", 1, "spool")
                _log.warning("a status update waits in the spool: %s", error)
        else:
            counters.add("fallbacks_total", 1, "postgresql")
            _log.warning("a status update went straight to PostgreSQL")

    def replay_spool(self) -> Replayed:
        """Write what is in the spool to PostgreSQL.

        Raises: ServiceUnreachable: what was not written stays. OSError: the folder can't be read.
        """
        replayed = self._spool.replay(self._write_all)
        if replayed.records:
            _log.warning("%d status updates of the spool are in PostgreSQL now", replayed.records)
        return replayed

    def _write_all(self, contents: Sequence[bytes]) -> None:
        for batch in self._batches(contents):
            self._write(batch)

    def _batches(self, contents: Iterable[bytes]) -> Iterable[ParsedEntry]:
        batch = ParsedEntry()
        for content in contents:
            batch.add(parse_text("spool", content))
            if batch.rows >= self._batch_rows:
                yield batch
                batch = ParsedEntry()
        yield batch

    def _write(self, parsed: ParsedEntry) -> None:
        if parsed.rows or parsed.dead_letters:
            write_rows(self._database, parsed.tasks, parsed.branches, parsed.sessions, parsed.dead_letters)
