"""Calls of functions as the engine asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from orchestration.engine.cancellation import Cancellation
from orchestration.engine.invoke import Call
from orchestration.registry import ActionSpec


def call_of(function: Callable[..., Any], cancellation: Cancellation, seconds: float = 5.0) -> Call:
    """A call that may take so long, of a session with that cancellation."""

    def unused(_: Call) -> Any:
        raise AssertionError

    spec = ActionSpec(
        "test.any", function, is_async=asyncio.iscoroutinefunction(function), takes_context=False, parameters={},
        accepts_any=False,
    )  # fmt: skip
    return Call(spec, {}, unused, seconds, "any", -1, 1, cancellation)
