"""A receiver of OTLP over HTTP, as a collector is one: what is sent to it is decoded and kept."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.support.web import Site, Visit, serve_site


@dataclass(frozen=True)
class Event:
    """An event of a span; its time in µs."""

    name: str
    time_us: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Span:
    """A span as it came; times in µs."""

    name: str
    trace_id: str
    span_id: str
    #: Empty: it is a root.
    parent_id: str
    started_us: int
    finished_us: int
    attributes: Mapping[str, Any]
    events: Sequence[Event]
    #: Ids of the spans that it links to.
    links: Sequence[str]
    failed: bool
    #: Of the status.
    message: str
    service: str

    def __getitem__(self, attribute: str) -> Any:
        """An attribute of the processor's own, without `parallelizer.`; None: it has none."""
        return self.attributes.get(f"parallelizer.{attribute}")


class Receiver:
    """What has come, each span once."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._spans: dict[tuple[str, str], Span] = {}
        #: Spans that came a second time, each beside what came first.
        self._repeated: list[tuple[Span, Span]] = []
        site.page("/v1/traces")(self._receive)

    @property
    def endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return self._site.url("")

    @property
    def requests(self) -> int:
        return len(self._site.received)

    def spans(self, trace_id: str | None = None) -> list[Span]:
        """Those of a trace, or all."""
        with self._lock:
            return [span for span in self._spans.values() if trace_id in (None, span.trace_id)]

    def repeated(self, trace_id: str) -> list[tuple[Span, Span]]:
        """Spans of a trace that came a second time, each beside what came first."""
        with self._lock:
            return [pair for pair in self._repeated if pair[0].trace_id == trace_id]

    def _receive(self, visit: Visit) -> None:
        body = visit.received.body
        if visit.received.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for span in _spans_in(request):
                key = span.trace_id, span.span_id
                if key in self._spans:
                    self._repeated.append((self._spans[key], span))
                self._spans[key] = span
        visit.reply(content_type="application/x-protobuf")


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port of this host."""
    with serve_site() as site:
        yield Receiver(site)


def _spans_in(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for of_resource in request.resource_spans:
        service = _attributes(of_resource.resource.attributes).get("service.name", "")
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Span(
                    span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                    span.start_time_unix_nano // 1000, span.end_time_unix_nano // 1000, _attributes(span.attributes),
                    [Event(e.name, e.time_unix_nano // 1000, _attributes(e.attributes)) for e in span.events],
                    [link.span_id.hex() for link in span.links], span.status.code == span.status.STATUS_CODE_ERROR,
                    span.status.message, service,
                )  # fmt: skip


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)
