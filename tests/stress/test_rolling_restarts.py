"""Two workers that are replaced ten times under load: no task is lost, none runs twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.test_lost_processes import replace_workers
from tests.support.fleet import Fleet

#: Ten times both workers.
REPLACEMENTS = 20


@pytest.mark.timeout(600)
def test_ten_rolling_restarts_under_load_run_every_task_once(fleet: Fleet, tmp_path: Path) -> None:
    replace_workers(fleet, tmp_path, REPLACEMENTS)
