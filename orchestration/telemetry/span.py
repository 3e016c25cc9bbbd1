"""A span of what is recorded, and its two ways out: as the SDK has it, for any exporter, and as bytes of OTLP.

The SDK's way from what we know to bytes makes a dozen objects for each span and takes 35 µs; straight to bytes it is a
third of that, and a run of five steps has twelve spans. What is not the same in span after span is still encoded by the
library. Format: opentelemetry-proto, trace/v1/trace.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

Attributes = dict[str, Any]
Value = str | int | float | bool

_FLAGS: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)
#: Attributes that are kept as bytes; a hundred bytes each.
_MOST_KEPT: Final = 8192
#: Longer texts seldom come twice.
_MOST_CHARACTERS: Final = 64


@dataclass(slots=True)
class Span:
    """One span that has ended; times in µs since the epoch."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    kind: SpanKind
    started_us: int
    finished_us: int
    attributes: Attributes
    #: Spans of the same trace.
    links: Sequence[int] = ()
    events: Sequence[tuple[str, int, Mapping[str, str]]] = ()
    #: What went wrong; None: nothing.
    failure: str | None = None
    #: Its number among those of this process (`tracing_sdk.Sent`).
    number: int = 0
    #: Batch processors ask whether a span is sampled: these are.
    context: ClassVar[SpanContext] = SpanContext(1, 1, is_remote=False, trace_flags=_FLAGS)

    def readable(self, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
        """The same as the SDK has it."""
        return ReadableSpan(
            self.name, self._context(self.span_id), None if self.parent_id is None else self._context(self.parent_id),
            resource, self.attributes,
            [Event(name, dict(about), at_us * 1000) for name, at_us, about in self.events],
            [Link(self._context(link)) for link in self.links], self.kind, None,
            _UNSET if self.failure is None else Status(StatusCode.ERROR, self.failure),
            self.started_us * 1000, self.finished_us * 1000, scope,
        )  # fmt: skip

    def _context(self, span_id: int) -> SpanContext:
        return SpanContext(self.trace_id, span_id, is_remote=False, trace_flags=_FLAGS)


class OtlpEncoder:
    """Makes requests of OTLP of spans."""

    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        self._kept: dict[tuple[str, type, Value], bytes] = {}
        self._names: dict[tuple[str, SpanKind], bytes] = {}
        #: What is before the value of an attribute that is a float, which is seldom the same twice.
        self._floats: dict[str, bytes] = {}
        self._resource = trace_pb2.ResourceSpans(
            resource=resource_pb2.Resource(attributes=[_key_value(*pair) for pair in resource.attributes.items()]),
            schema_url=resource.schema_url,
        ).SerializeToString()
        self._scope = trace_pb2.ScopeSpans(
            scope=common_pb2.InstrumentationScope(name=scope.name, version=scope.version or "")
        ).SerializeToString()

    def encode(self, spans: Sequence[Span]) -> bytes:
        """An ExportTraceServiceRequest."""
        scope_spans = b"".join([self._scope, *[_field(b"\x12", self._encode_span(span)) for span in spans]])
        return _field(b"\n", self._resource + _field(b"\x12", scope_spans))

    def _encode_span(self, span: Span) -> bytes:
        trace_id = span.trace_id.to_bytes(16)
        parts = [b"\n\x10", trace_id, b"\x12\x08", span.span_id.to_bytes(8)]
        if span.parent_id is not None:
            parts += (b'"\x08', span.parent_id.to_bytes(8))
        key = span.name, span.kind
        parts.append(self._names.get(key) or self._name(key))
        parts.append(_TIMES.pack(b"9", span.started_us * 1000, b"A", span.finished_us * 1000))
        kept = self._kept
        for name, value in span.attributes.items():
            parts.append(kept.get((name, value.__class__, value)) or self._attribute(name, value))
        for link in span.links:
            parts += (b"j!\n\x10", trace_id, b"\x12\x08", link.to_bytes(8), _LINK_FLAGS)
        if span.events or span.failure is not None:
            parts.append(_rest(span))
        else:
            parts.append(_NO_STATUS)
        parts.append(_SPAN_FLAGS)
        return b"".join(parts)

    def _name(self, key: tuple[str, SpanKind]) -> bytes:
        made = self._names[key] = bytes(trace_pb2.Span(name=key[0], kind=_KINDS[key[1]]).SerializeToString())
        return made

    def _attribute(self, name: str, value: Value) -> bytes:
        if isinstance(value, float):
            before = self._floats.get(name)
            if before is None:
                key_value = _key_value(name, 1.0).SerializeToString()
                before = self._floats[name] = _field(b"J", key_value).removesuffix(_DOUBLE.pack(1.0))
            return before + _DOUBLE.pack(value)
        made = _field(b"J", _key_value(name, value).SerializeToString())
        if isinstance(value, int) or len(value) <= _MOST_CHARACTERS:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[name, value.__class__, value] = made
        return made


def _rest(span: Span) -> bytes:
    """Events and status."""
    status = trace_pb2.Status()
    if span.failure is not None:
        status = trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message=span.failure)
    events = [
        trace_pb2.Span.Event(name=name, time_unix_nano=at_us * 1000, attributes=[_key_value(*p) for p in about.items()])
        for name, at_us, about in span.events
    ]
    return bytes(trace_pb2.Span(events=events, status=status).SerializeToString())


def _key_value(name: str, value: Any) -> common_pb2.KeyValue:
    """Raises: TypeError: there are no such attributes here."""
    match value:
        case bool():
            made = common_pb2.AnyValue(bool_value=value)
        case int():
            made = common_pb2.AnyValue(int_value=value)
        case float():
            made = common_pb2.AnyValue(double_value=value)
        case str():
            made = common_pb2.AnyValue(string_value=value)
        case _:
            raise TypeError(f"{name} is {value!r}")
    return common_pb2.KeyValue(key=name, value=made)


def _field(tag: bytes, content: bytes) -> bytes:
    """A field with a length."""
    length, size = len(content), b""
    while length > 127:
        size += bytes((length & 127 | 128,))
        length >>= 7
    return b"%b%b%c%b" % (tag, size, length, content)


_KINDS: Final = {kind: trace_pb2.Span.SpanKind.Value(f"SPAN_KIND_{kind.name}") for kind in SpanKind}
_TIMES: Final = struct.Struct("<cQcQ")
_DOUBLE: Final = struct.Struct("<d")
#: The parent, and what is linked, are not of another process as far as the format is concerned.
_NOT_REMOTE: Final = struct.pack("<I", trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_LINK_FLAGS: Final = b"5" + _NOT_REMOTE
_SPAN_FLAGS: Final = b"\x85\x01" + _NOT_REMOTE
_NO_STATUS: Final = b"z\x00"
