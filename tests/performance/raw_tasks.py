"""The processor's application with plain Celery tasks beside it: what a benchmark compares with."""

from __future__ import annotations

from tasks import app

__all__ = ["app", "raw_noop", "raw_result"]


@app.task(name="bench.raw_noop", ignore_result=True)
def raw_noop(_previous: object = None) -> None:
    """Do nothing, as a task without a result."""


@app.task(name="bench.raw_result", ignore_result=False)
def raw_result(_previous: object = None) -> None:
    """Do nothing, as a task with a result: what a chain needs."""
