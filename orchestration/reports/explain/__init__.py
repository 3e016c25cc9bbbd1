"""Why something is not running, why it failed, where its time went: `parallelizer explain`, and the pages.

`gather` reads, the other modules decide from what it has read and do no I/O.
"""

from orchestration.reports.explain.explaining import explain_run, spent_in_words, waits_of
from orchestration.reports.explain.model import Cause, CauseCode, Explanation, PathStep, TimeSpent

__all__ = [
    "Cause",
    "CauseCode",
    "Explanation",
    "PathStep",
    "TimeSpent",
    "explain_run",
    "spent_in_words",
    "waits_of",
]
