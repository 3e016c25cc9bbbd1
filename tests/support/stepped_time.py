"""Live state by a clock that goes on by 1 µs with each call of a script, whatever the pace of the machine.

Without it an example of Hypothesis can't be repeated: units that are ready for 250 ms get turns, and leases end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from orchestration.state.client import ScriptCaller, connect
from orchestration.state.live import LiveState
from orchestration.state.patience import Keep
from orchestration.state.scripts import Argument

REAL = """
local clock_reply = redis.call('TIME')
local now = clock_reply[1] * 1000000 + clock_reply[2]
"""
BEGIN_US = 1_700_000_000_000_000
STEPPED = f"""
local now = {BEGIN_US} + redis.call('INCR', 'now:' .. prefix)
"""


@cache
def _stepped(source: str) -> tuple[str, str]:
    assert source.count("'TIME'") == source.count(REAL), "it asks for the time in another way than lua/shared/time.lua"
    source = source.replace(REAL, STEPPED)
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(), source


class _SteppedScripts(ScriptCaller):
    def call(self, sha: str, source: str, arguments: Sequence[Argument], keep: Keep | None = None) -> Any:
        sha, source = _stepped(source)
        return super().call(sha, source, arguments, keep)

    def send(
        self, sha: str, source: str, arguments: Sequence[Argument], answered: Callable[[Any], None],
        keep: Keep | None = None,
    ) -> None:  # fmt: skip
        sha, source = _stepped(source)
        super().send(sha, source, arguments, answered, keep)


class SteppedLiveState(LiveState):
    """Live state of a namespace that nobody else uses."""

    def _connect(self) -> None:
        super()._connect()
        self._scripts = _SteppedScripts(connect(self._url))

    def now_us(self) -> int:
        """The time that the last script saw."""
        return BEGIN_US + int(self.client.get(f"now:{self.space.prefix}") or 0)

    def forget_time(self) -> None:
        """The namespace is not used any more."""
        self.client.unlink(f"now:{self.space.prefix}")
