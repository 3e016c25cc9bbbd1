"""What people read of how a process ended."""

from __future__ import annotations

import pytest
from billiard.common import human_status
from billiard.exceptions import TimeLimitExceeded, WorkerLostError

from tasks.worker.deaths import describe_death


def lost(exit_code: int) -> WorkerLostError:
    return WorkerLostError(f"Worker exited prematurely: {human_status(exit_code)} Job: 7.")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (lost(1), "with exit code 1"),
        (lost(0), "with exit code 0"),
        (lost(-11), "by signal 11 (SIGSEGV)"),
        (lost(-9), "by signal 9 (SIGKILL), as the kernel ends what takes too much memory"),
        (lost(-63), "by signal 63"),
        (TimeLimitExceeded(65.0), "by Celery's hard time limit (65 s)"),
        (TimeLimitExceeded(), "by Celery's hard time limit"),
        (WorkerLostError("gone"), "by WorkerLostError"),
        (ValueError("exitcode 3"), "by ValueError"),
    ],
)
def test_a_death_is_told_in_words(error: BaseException, text: str) -> None:
    assert describe_death(error) == text
