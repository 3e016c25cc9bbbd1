"""What the processes of a worker count: nothing is lost with a process that is killed, and nothing grows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from orchestration.telemetry.metrics_memory import COLUMNS, WorkerCounters


def read(counters: WorkerCounters) -> dict[tuple[str, str, int | None], int]:
    """All numbers that are not nought."""
    found = zip(COLUMNS, counters.read(), strict=True)
    return {(column.metric.short_name, column.label, column.bucket): number for column, number in found if number}


def test_a_child_that_is_killed_leaves_what_it_counted_and_another_one_goes_on() -> None:
    counters = WorkerCounters()
    counters.share()
    for _ in range(3):
        child = os.fork()
        if not child:
            counters.use_row_of_child(0)
            counters.add("busy_seconds_total", 5)
            counters.add("runner_slices_total", 1, "stop")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
    assert read(counters) == {("busy_seconds_total", "", None): 15, ("runner_slices_total", "stop", None): 3}


def test_a_program_that_joins_sees_what_others_count_and_adds_its_own() -> None:
    counters = WorkerCounters()
    descriptor = counters.share()
    counters.add("send_retries_total", 2)
    program = (
        "import sys; from orchestration.telemetry.metrics_memory import WorkerCounters; counters = WorkerCounters()\n"
        "counters.join(int(sys.argv[1])); counters.observe('status_batch_rows', 50)\n"
        "counters.observe('status_batch_rows', 51); counters.observe('versions_cache_update_seconds', 7)\n"
        "print(sum(counters.read()))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, str(descriptor)], pass_fds=[descriptor], check=True, capture_output=True
    )
    assert int(told.stdout) == 2 + 1 + 1 + 101 + 1 + 7
    assert read(counters) == {
        ("send_retries_total", "", None): 2,
        ("status_batch_rows", "", 2): 1, ("status_batch_rows", "", 3): 1, ("status_batch_rows", "", None): 101,
        ("versions_cache_update_seconds", "", 0): 1, ("versions_cache_update_seconds", "", None): 7,
    }  # fmt: skip


def test_threads_lose_no_count() -> None:
    counters = WorkerCounters()

    def count() -> None:
        for _ in range(2000):
            counters.add("fallbacks_total", 1, "spool")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(counters) == {("fallbacks_total", "spool", None): 8000}


def test_children_beyond_the_rows_share_the_last_one() -> None:
    counters = WorkerCounters()
    counters.use_row_of_child(100_000)
    counters.add("send_retries_total", 1)
    assert read(counters) == {("send_retries_total", "", None): 1}
