"""How other commands find the running stack."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from parallelizer.services.processes import ProcessMark, mark_process
from parallelizer.services.record import FILE_NAME, StackRecord, read_record, remove_record, write_record


@pytest.fixture
def record() -> StackRecord:
    mark = mark_process(os.getpid())
    assert mark is not None
    return StackRecord(mark, "redis://:a@h/0", "postgresql://u:b@h/d", 2, ready=True, temporary=False)


def test_a_record_is_read_as_it_was_written_and_is_private(tmp_path: Path, record: StackRecord) -> None:
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    remove_record(tmp_path)
    assert read_record(tmp_path) is None
    remove_record(tmp_path)


def test_a_record_whose_process_is_gone_does_not_count(tmp_path: Path, record: StackRecord) -> None:
    reused = ProcessMark(record.supervisor.pid, record.supervisor.started - 1000)
    write_record(tmp_path, replace(record, supervisor=reused))
    assert read_record(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"supervisor": 1}', '{"supervisor": {"pid": 1}}'])
def test_a_damaged_record_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert read_record(tmp_path) is None


def test_no_folder_no_record(tmp_path: Path) -> None:
    assert read_record(tmp_path / "absent") is None
