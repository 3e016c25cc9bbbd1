"""The campaign's look at metrics finds what is falsified: else its silence would say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from tests.chaos.campaign import break_things
from tests.chaos.faults import Fault
from tests.chaos.scraping import Scraper, scraping
from tests.chaos.stack import ChaosStack, chaos_stack
from tests.chaos.workload import kinds, publish
from tests.support.waiting import wait_until

#: Nothing but load.
NONE = Fault("none", 1, lambda _stack, _chance: None)
#: Of no duration, so that one counter tells it.
FALSIFY = """
INSERT INTO metric_changes (measures, workflows, actions, statuses, buckets, counts, totals)
SELECT ARRAY[measure], ARRAY[workflow], ARRAY[action], ARRAY[status], ARRAY[-1], ARRAY[%s], ARRAY[0]
FROM metric_counts WHERE (measure, workflow, status) = ('item', 'items', 'succeeded') LIMIT 1
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[ChaosStack]:
    with chaos_stack((("threads", 4),)) as started:
        publish(started.database_url, kinds())
        started.start_workers()
        yield started


def falsify(stack: ChaosStack, by: int) -> None:
    with closing(psycopg2.connect(stack.database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(FALSIFY, (by,))
        assert cursor.rowcount == 1


def wait_for_answers(scraper: Scraper, count: int) -> None:
    before = scraper.watch.answers.total()
    wait_until(lambda: scraper.watch.answers.total() >= before + count, "workers were scraped")


def test_a_total_that_is_falsified_is_found(stack: ChaosStack) -> None:
    report = break_things(stack, 1, 4.0, 8.0, [NONE])
    assert report.findings.holds, report.text()
    assert sum(report.scrapes.values()) > 0
    with scraping(stack) as scraper:
        wait_for_answers(scraper, 1)
        falsify(stack, 1)
        wait_for_answers(scraper, 3)
        (found,) = scraper.findings([], last_seconds=2.0)
        assert "items of items, each, succeeded, the record" in found
        falsify(stack, -1)
        wait_until(lambda: bool(scraper.watch.falls), "a counter went back")
    (found,) = scraper.findings([])
    assert "parallelizer_items_total of action=each, status=succeeded, workflow=items went from" in found
