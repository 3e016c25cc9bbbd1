"""Read-only answers about runs, for the command line and the pages."""

from orchestration.reports.runs import (
    ActionProgress,
    Live,
    RunProgress,
    RunReport,
    TaskReport,
    failures,
    list_runs,
    progress,
    status,
)

__all__ = [
    "ActionProgress",
    "Live",
    "RunProgress",
    "RunReport",
    "TaskReport",
    "failures",
    "list_runs",
    "progress",
    "status",
]
