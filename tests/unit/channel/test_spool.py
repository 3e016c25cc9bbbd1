"""The spool keeps what was appended, whole and in order, whatever breaks off; and never more than it may."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.channel.spool import SEGMENT_BYTES, Replayed, Spool, read_records, record_of
from orchestration.errors import SpoolFull

ROOM = 1 << 30
contents = st.lists(st.binary(min_size=1, max_size=60), max_size=6)


def replay(spool: Spool) -> tuple[list[bytes], Replayed]:
    """What a replay hands out, and what it says."""
    found: list[bytes] = []
    return found, spool.replay(found.extend)


@given(contents, st.data())
@settings(max_examples=300)
def test_a_file_that_breaks_off_at_any_byte_gives_what_is_whole(written: list[bytes], data: st.DataObject) -> None:
    records = [record_of(one) for one in written]
    whole = b"".join(records)
    cut = data.draw(st.integers(0, len(whole)))
    found, good_bytes = read_records(whole[:cut])
    assert found == written[: len(found)]
    assert good_bytes == sum(len(record) for record in records[: len(found)])
    rest = len(whole[:cut]) - good_bytes
    assert rest == 0 or rest < len(records[len(found)]), "only a record that is not whole is left out"


@given(contents.filter(bool), st.data())
@settings(max_examples=300)
def test_a_damaged_byte_makes_nothing_up(written: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(b"".join(record_of(one) for one in written))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    found, _ = read_records(bytes(whole))
    assert found == written[: len(found)]
    assert len(found) < len(written)


@given(contents, st.integers(1, 100))
def test_zeros_behind_the_records_are_no_records(written: list[bytes], zeros: int) -> None:
    whole = b"".join(record_of(one) for one in written)
    assert read_records(whole + bytes(zeros)) == (written, len(whole))


@given(contents, contents)
@settings(max_examples=5)
def test_every_torn_write_is_found_and_what_stands_before_it_is_replayed(
    tmp_path_factory: pytest.TempPathFactory, before: list[bytes], after: list[bytes]
) -> None:
    last = record_of(b"the last words")
    for cut in range(1, len(last)):
        spool = Spool(tmp_path_factory.mktemp("spool"), ROOM)
        folder = spool._folder
        for content in before:
            spool.append(content)
        torn = spool._path or folder / "1-torn.spool"
        with torn.open("ab") as file:
            file.write(last[:cut])
        spool._pid = 0  # as another process
        for content in after:
            spool.append(content)
        found, replayed = replay(spool)
        assert sorted(found) == sorted(before + after)
        assert replayed == Replayed(len(found), torn_files=1)
        assert [path.suffix for path in folder.iterdir()] == [".torn"]
        assert replay(spool) == ([], Replayed())


def test_a_replay_that_fails_changes_nothing_and_one_that_succeeds_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ROOM)
    spool.append(b"one")
    spool.append(b"two")

    def fail(_contents: Sequence[bytes]) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        spool.replay(fail)
    assert replay(spool) == ([b"one", b"two"], Replayed(2))
    assert list((tmp_path / "spool").iterdir()) == []
    spool.append(b"three")
    assert replay(Spool(tmp_path / "spool", ROOM)) == ([b"three"], Replayed(1)), "a file that was replayed is not used"


def test_a_file_that_somebody_writes_waits_for_the_next_replay(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    spool.append(b"one")
    with spool._own_file():
        assert replay(Spool(tmp_path, ROOM)) == ([], Replayed())
    assert replay(Spool(tmp_path, ROOM))[0] == [b"one"]


def test_a_forked_process_writes_a_file_of_its_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    spool.append(b"parent")
    child = os.fork()
    if child == 0:
        try:
            spool.append(b"child")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 2
    assert sorted(replay(spool)[0]) == [b"child", b"parent"]


def test_the_spool_is_bounded_and_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path, most_bytes=100)
    spool.append(b"x" * 50)
    with pytest.raises(SpoolFull, match="SPOOL_MAX_BYTES=100"):
        spool.append(b"x" * 50)
    assert replay(spool)[0] == [b"x" * 50]
    spool.append(b"x" * 50)


def test_a_full_disk_leaves_no_half_a_record_behind(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    spool.append(b"one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            spool._pid = os.getpid()  # the same file
            resource.setrlimit(resource.RLIMIT_FSIZE, (30, limits[1]))
            try:
                spool.append(b"x" * 100)
            except OSError:
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    spool.append(b"two")
    assert replay(spool) == ([b"one", b"two"], Replayed(2))


def test_a_large_file_gets_a_successor(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    for _ in range(3):
        spool.append(bytes(SEGMENT_BYTES // 2))
    assert len(list(tmp_path.iterdir())) == 2
