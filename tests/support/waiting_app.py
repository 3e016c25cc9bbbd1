"""Our application with tasks that come later (`celery -A tests.support.waiting_app worker`)."""

from __future__ import annotations

from typing import Any

from tasks import app
from tasks.canvas import ProcessorTask

__all__ = ["app", "come_again", "come_once"]


@app.task(base=ProcessorTask, name="test.come_once", ignore_result=False)
def come_once() -> str:
    """Give the word."""
    return "came"


@app.task(base=ProcessorTask, bind=True, name="test.come_again", ignore_result=False)
def come_again(self: Any, seconds: float, queue: str) -> str:
    """Fail at first; come again on another queue so many seconds later."""
    if self.request.retries:
        return "came"
    raise self.retry(countdown=seconds, queue=queue)
