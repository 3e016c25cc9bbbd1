"""The data folder: secrets, ports, logs, the lock."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.errors import SettingsError
from parallelizer.services import folder
from parallelizer.services.folder import FollowedLog, kept_port, kept_secret, locked, log_tail, open_log, prepare_folder


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return prepare_folder(tmp_path / "deep" / "data")


def test_a_secret_is_made_once_and_is_readable_by_its_owner_only(data_dir: Path) -> None:
    first = kept_secret(data_dir, "redis")
    assert len(first) >= 24
    assert kept_secret(data_dir, "redis") == first
    assert kept_secret(data_dir, "postgres") != first
    assert stat.S_IMODE((data_dir / "secrets" / "redis").stat().st_mode) == 0o600


def test_the_data_folder_is_closed_to_others_and_ignored_by_git(data_dir: Path) -> None:
    assert not data_dir.stat().st_mode & 0o066
    assert (data_dir / ".gitignore").read_text() == "*\n"


def test_a_folder_that_holds_something_else_keeps_its_mode_and_its_gitignore(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir(mode=0o755)
    (project / "setup.py").touch()
    prepare_folder(project)
    assert stat.S_IMODE(project.stat().st_mode) == 0o755
    assert not (project / ".gitignore").exists()


def test_a_folder_that_cannot_be_used_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"file/data can't be used .*--data-dir"):
        prepare_folder(tmp_path / "file" / "data")


def test_a_port_is_kept_while_it_is_free_and_changed_when_it_is_taken(data_dir: Path) -> None:
    port = kept_port(data_dir, "redis")
    assert kept_port(data_dir, "redis") == port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        other = kept_port(data_dir, "redis")
    assert other != port


def test_a_damaged_port_file_is_replaced(data_dir: Path) -> None:
    (data_dir / "ports" / "redis").write_text("not a number")
    assert kept_port(data_dir, "redis") > 0


def test_only_one_process_holds_the_lock(data_dir: Path) -> None:
    ask = (
        "import sys; from pathlib import Path; from parallelizer.services.folder import locked\n"
        "with locked(Path(sys.argv[1])) as mine: print(mine)"
    )

    def other() -> str:
        return subprocess.run([sys.executable, "-c", ask, data_dir], check=True, capture_output=True, text=True).stdout

    with locked(data_dir) as mine:
        assert mine
        assert other() == "False\n"
    assert other() == "True\n"


def test_a_followed_log_gives_each_whole_line_once(data_dir: Path) -> None:
    with open_log(data_dir, "worker-1") as log:
        log.write(b"before\n")
    followed = FollowedLog(data_dir / "log" / "worker-1.log")
    assert followed.new_lines() == []
    with open_log(data_dir, "worker-1") as log:
        log.write(b"one\ntw")
        log.flush()
        assert followed.new_lines() == ["one"]
        log.write(b"o\n\xff\n")
        log.flush()
        assert followed.new_lines() == ["two", "\ufffd"]
    assert followed.new_lines() == []


def test_a_large_log_is_set_aside_and_following_goes_on(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "LOG_BYTES", 10)
    with open_log(data_dir, "worker-1") as log:
        log.write(b"a line longer than ten bytes\n")
        log.flush()
        followed = FollowedLog(data_dir / "log" / "worker-1.log")
        folder.trim_log(data_dir / "log" / "worker-1.log")
        log.write(b"short\n")
    assert followed.new_lines() == ["short"]
    assert (data_dir / "log" / "worker-1.log.1").read_text() == "a line longer than ten bytes\n"


def test_the_tail_of_a_log_is_short_and_may_be_absent(data_dir: Path) -> None:
    path = data_dir / "log" / "x.log"
    assert log_tail(path) == ""
    path.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert log_tail(path, lines=2) == "line 9998\nline 9999"
