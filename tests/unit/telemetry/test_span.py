"""Our own spans are to a receiver what the SDK's would be."""

from __future__ import annotations

from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind

from orchestration.telemetry import tracing_catalogue as names
from orchestration.telemetry.span import OtlpEncoder, Span
from orchestration.telemetry.tracing_sdk import Sent
from tests.support.web import serve_site

RESOURCE = Resource({"service.name": "parallelizer", "service.instance.id": "w@h"}, "https://example.org/schema")
SCOPE = InstrumentationScope(names.SCOPE)

_ids = st.integers(1, 2**64 - 1)
_times = st.integers(0, 2**63 // 1000 - 1)
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
#: Long ones, whose length takes more than a byte or two, among them.
_texts = _text | st.integers(100, 20_000).map(lambda size: "x" * size)
_values = _texts | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans()
_spans = st.builds(
    Span, name=_text, trace_id=st.integers(1, 2**128 - 1), span_id=_ids, parent_id=st.none() | _ids,
    kind=st.sampled_from(SpanKind), started_us=_times, finished_us=_times,
    attributes=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]) | _text, _values, max_size=6),
    links=st.lists(_ids, max_size=3),
    events=st.lists(st.tuples(_text, _times, st.dictionaries(_text, _texts, max_size=3)), max_size=2),
    failure=st.none() | _texts,
)  # fmt: skip
#: One for all: what it keeps must not be mistaken for something else, as True for 1 and 1.0.
ENCODER = OtlpEncoder(RESOURCE, SCOPE)


def as_the_sdk(spans: list[Span]) -> ExportTraceServiceRequest:
    request = encode_spans([span.readable(RESOURCE, SCOPE) for span in spans])
    assert isinstance(request, ExportTraceServiceRequest)
    return request


@given(spans=st.lists(_spans, min_size=1, max_size=4))
def test_the_bytes_are_what_the_exporters_make_of_the_same_spans(spans: list[Span]) -> None:
    found = ExportTraceServiceRequest.FromString(ENCODER.encode(spans))
    assert found == as_the_sdk(spans)


def test_values_that_are_equal_but_not_the_same_are_told_apart() -> None:
    span = Span("x", 1, 2, None, SpanKind.INTERNAL, 1, 2, {})
    for value in (1, True, 1.0, 0, False, 0.0):
        span.attributes = {"a": value}
        assert ExportTraceServiceRequest.FromString(ENCODER.encode([span])) == as_the_sdk([span]), value


def test_the_exporter_over_http_sends_our_bytes_and_still_the_spans_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = [Span("ours", 1, 2, None, SpanKind.CONSUMER, 1, 2, {"a": 1}, number=5)]
    theirs = [Span("theirs", 3, 4, None, SpanKind.SERVER, 1, 2, {}).readable(RESOURCE, SCOPE)]
    wanted = [as_the_sdk(spans), encode_spans(theirs)]

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a new version of the exporter may have another way in")

    monkeypatch.setattr(Span, "readable", refuse)
    monkeypatch.setattr(trace_exporter, "encode_spans", encode_spans)  # as it was, afterwards
    with serve_site() as site:
        site.say("/", b"", content_type="application/x-protobuf")
        exporter = trace_exporter.OTLPSpanExporter(site.url())
        sent = Sent(exporter, RESOURCE)
        assert sent.export(spans) is SpanExportResult.SUCCESS
        assert sent.number == 5
        assert exporter.export(theirs) is SpanExportResult.SUCCESS
    assert [ExportTraceServiceRequest.FromString(got.body) for got in site.received] == wanted
