"""A checkpoint whose answer is waited for."""

from __future__ import annotations

from orchestration.state.live import LiveState
from orchestration.state.records import Runner
from orchestration.vocabulary import Claim


def checkpoint(live: LiveState, runner: Runner, claim: Claim | None, action: str, result: bytes) -> bool:
    """Keep a step's result; whether it was taken."""
    answers: list[object] = []
    live.send_checkpoint(runner, claim, "2026-01-01", action, result, b"", answers.append)
    live.await_checkpoints()
    [answer] = answers
    return bool(answer)
