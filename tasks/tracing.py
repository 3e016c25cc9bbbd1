"""How a trace travels with Celery's messages, and the spans of the status channel in the upkeep process.

The messages of a run, of a runner and of a completion have the W3C header `traceparent`. Who sends one inside a span,
such as a web application, gives it along, with or without an instrumentation of Celery. In a worker, OpenTelemetry's
instrumentation reads it. That one makes no spans here: those of a message would be lost with a process that is killed,
and what is below them would hang in the air. A session's spans are told by its record (telemetry/tracing.py).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from celery import signals

from config.masking import Masker, secrets_of
from config.settings import Settings
from orchestration.errors import SettingsError
from orchestration.store.failures import failed_rows
from orchestration.store.pool import Database
from orchestration.telemetry.tracing import TracedRows
from orchestration.telemetry.tracing_sdk import (
    LateBatches,
    Sent,
    end_tracing,
    is_on,
    make_exporter,
    name_worker,
    preload,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from orchestration.telemetry.span import Span
    from orchestration.telemetry.tracing_spans import FailedSession

_log = logging.getLogger(__name__)
#: Until what is recorded of a session that has failed is in PostgreSQL, whoever writes it.
RECORDED_SECONDS: Final = 2.0


@signals.before_task_publish.connect(weak=False)
def _carry(headers: MutableMapping[str, Any] | None = None, **_: Any) -> None:
    """Give the current trace along, where there is one: who has begun it has loaded OpenTelemetry."""
    if headers is None or "traceparent" in headers or "opentelemetry.trace" not in sys.modules:
        return
    from opentelemetry import trace  # noqa: PLC0415 - it is there
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    if trace.get_current_span().get_span_context().is_valid:
        TraceContextTextMapPropagator().inject(headers)


def prepare_worker(worker: str) -> None:
    """Messages are read with their trace; called before the fork."""
    if not is_on():
        return
    name_worker(worker)
    from opentelemetry.instrumentation.celery import CeleryInstrumentor  # noqa: PLC0415 - only where traces are on
    from opentelemetry.metrics import NoOpMeterProvider  # noqa: PLC0415
    from opentelemetry.trace import NoOpTracerProvider  # noqa: PLC0415

    preload()
    instrumentor = CeleryInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:  # somebody else's, such as `opentelemetry-instrument`
        instrumentor.instrument(tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
        # without spans of messages these only give the trace along, as `_carry` does at a quarter of their cost
        signals.before_task_publish.disconnect(instrumentor._trace_before_publish)  # noqa: SLF001
        signals.after_task_publish.disconnect(instrumentor._trace_after_publish)  # noqa: SLF001


@signals.worker_process_shutdown.connect(weak=False)
@signals.worker_shutdown.connect(weak=False)
def _end(**_: Any) -> None:
    """Send the spans that actions have made."""
    end_tracing()


class ChannelSpans:
    """Makes and sends the spans of what an updater has written."""

    def __init__(self, database: Database, worker: str, masker: Masker) -> None:
        from orchestration.telemetry.resource import make_resource  # noqa: PLC0415 - it loads the SDK
        from orchestration.telemetry.tracing_spans import SpanMaker  # noqa: PLC0415

        self._database = database
        self._sent = Sent(make_exporter(), make_resource(worker))
        self._made = 0
        self._emitting = threading.Lock()
        self._batches = LateBatches(lambda: cast("SpanExporter", self._sent))
        self._maker = SpanMaker(self._emit, masker, self._remember)
        self._failures: deque[tuple[float, FailedSession]] = deque(maxlen=10_000)

    def add(self, updates: Sequence[TracedRows]) -> int:
        """These are written: their spans will be sent. Returns a ticket for `is_sent`."""
        self._maker.add(updates)
        return self._made

    def is_sent(self, ticket: int) -> bool:
        """Whether the spans of that ticket, and of all before, are sent, or given up by the exporter."""
        return self._sent.number >= ticket

    def send_now(self) -> None:
        """Send what waits, if that is quick."""
        self._batches.send_now()

    def tell_failures(self) -> None:
        """What failed of sessions that were not sampled has spans too, made of their record.

        Raises: ServiceUnreachable: with the next call.
        """
        from orchestration.telemetry.tracing_spans import failed_updates  # noqa: PLC0415

        while self._failures and self._failures[0][0] <= time.monotonic():
            failed = self._failures[0][1]
            tasks, branches = failed_rows(self._database, failed.trace.flow_session_id, failed.day)
            self._maker.add(failed_updates(failed, tasks, branches))
            self._failures.popleft()

    def end(self) -> None:
        """All is sent, if that is quick."""
        self._batches.end()

    def _emit(self, span: Span) -> None:
        with self._emitting:  # two threads make spans: the updater's, and that of `tell_failures`
            self._made = span.number = self._made + 1
            self._batches.on_end(span)

    def _remember(self, failed: FailedSession) -> None:
        self._failures.append((time.monotonic() + RECORDED_SECONDS, failed))


def channel_spans(database: Database, worker: str, settings: Settings) -> ChannelSpans | None:
    """What makes spans in the updater of this worker; None: traces are off, or what is asked for is not installed."""
    try:
        return ChannelSpans(database, worker, Masker(secrets_of(settings))) if is_on() else None
    except SettingsError as error:
        _log.error("no traces: %s", error)
        return None
