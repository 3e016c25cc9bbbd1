"""`<data_dir>/stack.json`: how other commands find the running stack. It holds passwords: mode 0600.

A record counts only while the process that wrote it lives: after a `kill -9` it is as good as absent.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parallelizer.services.folder import write_private
from parallelizer.services.processes import ProcessMark, is_alive

FILE_NAME = "stack.json"


@dataclass(frozen=True, slots=True)
class StackRecord:
    """A running stack."""

    #: The process that runs the stack.
    supervisor: ProcessMark
    redis_url: str
    database_url: str
    #: Workers wanted.
    workers: int
    #: All workers have registered once.
    ready: bool
    #: Made by `parallelizer run` for one run.
    temporary: bool


def write_record(data_dir: Path, record: StackRecord) -> None:
    write_private(data_dir / FILE_NAME, json.dumps(asdict(record), indent=2) + "\n")


def read_record(data_dir: Path) -> StackRecord | None:
    """The record of the stack that runs in this data folder, or None."""
    try:
        raw: Any = json.loads((data_dir / FILE_NAME).read_text(encoding="utf-8"))
        record = StackRecord(**{**raw, "supervisor": ProcessMark(**raw["supervisor"])})
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        return None
    return record if is_alive(record.supervisor) else None


def remove_record(data_dir: Path) -> None:
    (data_dir / FILE_NAME).unlink(missing_ok=True)
