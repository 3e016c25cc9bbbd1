"""The OpenTelemetry SDK of a process, set up by the standard variables `OTEL_*`; without them none, and no thread.

Traces are on where `OTEL_TRACES_EXPORTER` names an exporter, or `OTEL_EXPORTER_OTLP_ENDPOINT` (or
`…_TRACES_ENDPOINT`) a receiver, unless `OTEL_SDK_DISABLED` is true. The SDK is loaded only then.

Each process has its own, made after the fork. It has no thread before it has its first span. Where the process has an
SDK of somebody else's already, that one is used.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context

from orchestration.errors import SettingsError
from orchestration.telemetry import tracing_catalogue as names
from orchestration.telemetry.probes import probed
from orchestration.telemetry.tracing import SessionTrace, own_trace_id, parse_traceparent

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from orchestration.telemetry.span import Span

_log = logging.getLogger(__name__)

#: Longest wait of a span in the process, ms, unless OTEL_BSP_SCHEDULE_DELAY says otherwise.
DELAY_MS: Final = 250
#: Spans that may wait in the process, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise: of one batch of status updates
#: and more. Beyond it, spans are dropped, which the SDK logs.
MOST_WAITING: Final = 65_536
#: How long the end of a process waits for a receiver.
END_MS: Final = 2000
HTTP_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def is_on() -> bool:
    """Whether this process is to make traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter:
        return exporter.lower() != "none"
    return any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip() for name in ("TRACES_ENDPOINT", "ENDPOINT"))


class Tracing:
    """Traces in one process of a worker: what is to be traced, and spans that actions and their libraries make."""

    def __init__(self, worker: str) -> None:
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - only where traces are on

        from orchestration.telemetry.resource import make_resource  # noqa: PLC0415

        self._batches: LateBatches | None = None
        known = trace.get_tracer_provider()
        if isinstance(known, TracerProvider):
            self._provider = known
            return
        self._batches = LateBatches(make_exporter)
        self._provider = TracerProvider(resource=make_resource(worker), shutdown_on_exit=False)
        self._provider.add_span_processor(self._batches)  # type: ignore[arg-type]  # it has all that one has
        trace.set_tracer_provider(self._provider)

    def accept(self, flow_session_id: str, traceparent: object, accepted_us: int) -> SessionTrace:
        """The trace of a session that is accepted now: the caller's, if there is one, and sampled as that is."""
        from opentelemetry.sdk.trace.sampling import Decision  # noqa: PLC0415

        caller = parse_traceparent(traceparent)
        # without a caller, what this process is at is no parent
        trace_id, span_id, parent = own_trace_id(flow_session_id), None, Context()
        if caller is not None:
            trace_id, span_id, is_sampled = caller
            parent = context_of(trace_id, span_id, is_sampled=is_sampled)
        decided = self._provider.sampler.should_sample(parent, trace_id, names.LIFECYCLE, trace.SpanKind.CONSUMER)
        is_sampled = decided.decision is Decision.RECORD_AND_SAMPLE
        return SessionTrace(flow_session_id, trace_id, span_id, is_sampled, accepted_us)

    def end(self) -> None:
        """What waits is sent, if that takes no longer than END_MS; nothing is sent any more."""
        if self._batches is not None:
            self._batches.end()


def context_of(trace_id: int, span_id: int, *, is_sampled: bool) -> Context:
    """A context in which this span is the current one, wherever it is made."""
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if is_sampled else trace.TraceFlags.DEFAULT)
    span = trace.NonRecordingSpan(trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags))
    return trace.set_span_in_context(span, Context())


class LateBatches:
    """A batch processor that is made when there is a first span, so that who has none has no thread of it.

    Its thread leaves the signals of time limits to the main thread.
    """

    def __init__(self, make: Callable[[], SpanExporter]) -> None:
        self._make_exporter = make
        self._making = threading.Lock()
        self._batches: Any = None

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Nothing: spans are sent when they have ended."""

    def _on_ending(self, span: Any) -> None:
        """Nothing; asked for by the SDK."""

    def on_end(self, span: ReadableSpan | Span) -> None:
        """It will be sent."""
        if self._batches is None:
            self._make()
        if self._batches:
            self._batches.on_end(span)

    def end(self) -> None:
        """As `shutdown`, but for END_MS at most."""
        ending = threading.Thread(target=self.shutdown, name="end-traces", daemon=True)
        ending.start()
        ending.join(END_MS / 1000)

    def shutdown(self) -> None:
        """All is sent; nothing will be."""
        if self._batches:
            self._batches.shutdown()

    def send_now(self) -> None:
        """As `force_flush`, but for END_MS at most."""
        sending = threading.Thread(target=self.force_flush, name="send-traces", daemon=True)
        sending.start()
        sending.join(END_MS / 1000)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """All is sent."""
        return not self._batches or bool(self._batches.force_flush(timeout_millis))

    def _make(self) -> None:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        with self._making:
            if self._batches is not None:
                return
            # a thread begins with the mask of who starts it
            before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGALRM, signal.SIGUSR1))
            try:
                self._batches = BatchSpanProcessor(
                    self._make_exporter(),
                    max_queue_size=None if "OTEL_BSP_MAX_QUEUE_SIZE" in os.environ else MOST_WAITING,
                    schedule_delay_millis=None if "OTEL_BSP_SCHEDULE_DELAY" in os.environ else DELAY_MS,
                )
            except SettingsError as error:
                self._batches = False  # said once
                _log.error("no traces: %s", error)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Sent:
    """An exporter of our own spans that says how far it has come, so that somebody can wait for it.

    It takes spans in order, but not all of them: those that waited longest are dropped when too many do.
    """

    def __init__(self, exporter: SpanExporter, resource: Resource) -> None:
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

        scope = InstrumentationScope(names.SCOPE)
        self._exporter = exporter
        self._as_given: Callable[[Sequence[Span]], Sequence[Any]]
        if _takes_bytes(exporter, resource, scope):
            self._as_given = lambda spans: spans
        else:
            self._as_given = lambda spans: [span.readable(resource, scope) for span in spans]
        #: Of the last span with which it has done.
        self.number = 0

    def export(self, spans: Sequence[Span]) -> SpanExportResult:
        """Send them."""
        try:
            return self._send(spans)
        finally:
            self.number = spans[-1].number

    @probed("spans.send")
    def _send(self, spans: Sequence[Span]) -> SpanExportResult:
        return self._exporter.export(self._as_given(spans))

    def shutdown(self) -> None:
        """Send no more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return self._exporter.force_flush(timeout_millis)


def _takes_bytes(exporter: SpanExporter, resource: Resource, scope: InstrumentationScope) -> bool:
    """The exporter sends our own spans from now on, encoded by us; False: it is another kind of exporter.

    The one for OTLP over HTTP calls a function of its module for the encoding: there is no other way in.
    """
    module: Any = sys.modules.get(type(exporter).__module__)
    if module is None or module.__name__ != HTTP_EXPORTER or not hasattr(module, "encode_spans"):
        return False
    from orchestration.telemetry.span import OtlpEncoder, Span  # noqa: PLC0415

    encoder, others = OtlpEncoder(resource, scope), module.encode_spans

    def encode(spans: Sequence[Any]) -> Any:
        return Encoded(encoder.encode(spans)) if spans and isinstance(spans[0], Span) else others(spans)

    module.encode_spans = encode
    return True


class Encoded(bytes):
    """A request that is in its form already."""

    __slots__ = ()

    def SerializePartialToString(self) -> bytes:  # noqa: N802 - as messages of protobuf have it
        """The bytes."""
        return self


#: The worker that this process belongs to; empty: nobody said it.
_worker = ""
_tracing: Tracing | None = None
_owner = 0
_making = threading.Lock()


def get_tracing() -> Tracing | None:
    """The traces of this process, made when first asked for; None: they are off."""
    global _tracing, _owner  # noqa: PLW0603 - one for each process
    if _owner != os.getpid():
        with _making:
            if _owner != os.getpid():
                _tracing = Tracing(_worker) if is_on() else None
                _owner = os.getpid()
    return _tracing


def name_worker(worker: str) -> None:
    """Spans that this process makes, and what it forks, are of that worker; called before the first of them."""
    global _worker  # noqa: PLW0603 - one for each process
    _worker = worker


def end_tracing() -> None:
    """The process ends: what waits in it is sent, if that is quick."""
    if _tracing is not None and _owner == os.getpid():
        _tracing.end()


def make_exporter() -> SpanExporter:
    """What sends spans, as the variables say.

    Raises: SettingsError: they name one that is not installed.
    """
    exporter: SpanExporter = _exporter_class()()
    return exporter


def preload() -> None:
    """What traces need is loaded: before the fork, so that processes share it. Nothing when they are off."""
    if is_on():
        importlib.import_module("opentelemetry.sdk.trace.export")
        with contextlib.suppress(SettingsError):  # the upkeep process says so
            _exporter_class()


def _exporter_class() -> Any:
    name = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        name = f"otlp_proto_{'grpc' if protocol == 'grpc' else 'http'}"
    found = next(iter(entry_points(group="opentelemetry_traces_exporter", name=name)), None)
    if found is None:
        raise SettingsError(
            f"OTEL_TRACES_EXPORTER or OTEL_EXPORTER_OTLP_PROTOCOL asks for the exporter {name}, which is not installed"
        )
    return found.load()
