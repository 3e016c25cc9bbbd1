"""Whom PostgreSQL runs as when we are root, and where its files then lie."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallelizer.services import unprivileged
from parallelizer.services.processes import UnixUser

STRANGER = UnixUser("stranger", 54321, 54321)


@pytest.fixture
def place_record(tmp_path: Path) -> Iterator[Path]:
    record = tmp_path / "postgres.location"
    yield record
    if record.exists():
        shutil.rmtree(record.read_text().strip())


def test_a_closed_parent_keeps_another_user_out(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "file").touch(mode=0o644)
    assert not unprivileged.can_read(closed / "file", STRANGER)
    assert unprivileged.can_reach(Path("/etc/x"), STRANGER)


def test_an_ordinary_user_stays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged.user_for_servers() is None


def test_the_place_is_remembered_and_made_again_when_it_is_gone(place_record: Path) -> None:
    place = unprivileged.place_for(place_record)
    assert stat.S_IMODE(place.stat().st_mode) == 0o711
    assert unprivileged.place_for(place_record) == place
    place.rmdir()
    other = unprivileged.place_for(place_record)
    assert other.is_dir()
    assert other != place


def test_a_place_that_somebody_replaced_by_a_link_is_not_used(place_record: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.symlink_to(tmp_path)
    place_record.write_text(f"{trap}\n")
    place = unprivileged.place_for(place_record)
    assert place != trap


def test_copied_programs_are_readable_for_everyone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "bin").mkdir(parents=True, mode=0o700)
    (source / "bin" / "server").write_text("program")
    (source / "bin" / "server").chmod(0o700)
    (source / "share").mkdir()
    (source / "share" / "data").write_text("data")
    (source / "share" / "data").chmod(0o600)
    copied = unprivileged.copy_programs(source, ("bin/server", "share", "absent"), tmp_path / "copy")
    assert stat.S_IMODE((copied / "bin" / "server").stat().st_mode) == 0o755
    assert stat.S_IMODE((copied / "share" / "data").stat().st_mode) == 0o644
    (copied / "share" / "data").write_text("kept")
    assert unprivileged.copy_programs(source, ("share",), tmp_path / "copy") == copied
    assert (copied / "share" / "data").read_text() == "kept"
