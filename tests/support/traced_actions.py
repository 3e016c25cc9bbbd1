"""Actions for tests of traces (ACTION_MODULES=tests.support.traced_actions)."""

from __future__ import annotations

import logging
import sys
import threading

from opentelemetry import trace

from orchestration import action

_log = logging.getLogger("tests.traced")


@action("test.span")
def span(name: str) -> str:
    """Log a line; make a span, as an instrumented library does; give its trace."""
    _log.info("before the span")
    with trace.get_tracer("tests").start_as_current_span(name) as made:
        return f"{made.get_span_context().trace_id:032x}"


@action("test.threads")
def threads() -> dict[str, object]:
    """Which threads this process has, and whether it has loaded the SDK for traces."""
    return {
        "threads": [thread.name for thread in threading.enumerate()],
        "sdk": "opentelemetry.sdk.trace" in sys.modules,
    }
