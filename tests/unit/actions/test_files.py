"""The built-in `files.*` actions, against real folders and the system's own tools."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from parallelizer.actions.files import CHUNK_BYTES, ListedFile, NotInFolder, hash_file, list_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files at two depths, an empty one, a link out of it and a link to itself."""
    root = tmp_path / "root"
    for path, content in {
        "b.py": b"b\n",
        "a.txt": b"",
        "é.py": b"x",
        "sub/a.py": b"1\n2",
        "sub/build/o.py": b"o",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (tmp_path / "outside.py").write_bytes(b"secret")
    (root / "out.py").symlink_to(tmp_path / "outside.py")
    (root / "sub" / "loop").symlink_to(root)
    return root


def paths(found: Sequence[ListedFile]) -> list[str]:
    return [file["path"] for file in found]


def test_list_is_in_byte_order_and_follows_no_links(folder: Path) -> None:
    assert list_files(str(folder)) == [
        {"path": "a.txt", "bytes": 0},
        {"path": "b.py", "bytes": 2},
        {"path": "sub/a.py", "bytes": 3},
        {"path": "sub/build/o.py", "bytes": 1},
        {"path": "é.py", "bytes": 1},
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pattern": "*.py"}, ["b.py", "sub/a.py", "sub/build/o.py", "é.py"]),
        ({"pattern": "*.py", "recursive": False}, ["b.py", "é.py"]),
        ({"pattern": "sub/*.py", "exclude": ["/sub/build"]}, ["sub/a.py"]),
        ({"exclude": ["build", "*.txt"]}, ["b.py", "sub/a.py", "é.py"]),
        ({"exclude": ["/build"]}, ["a.txt", "b.py", "sub/a.py", "sub/build/o.py", "é.py"]),
        ({"pattern": "*.PY"}, []),
    ],
)
def test_patterns_choose_by_name_or_by_path(folder: Path, options: dict[str, object], expected: list[str]) -> None:
    assert paths(list_files(str(folder), **options)) == expected  # type: ignore[arg-type]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        list_files(str(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        list_files(str(tmp_path / "file"))


def test_a_name_that_is_not_utf8_is_reported_and_can_be_excluded(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).touch()
    with pytest.raises(ValueError, match=r"caf\\xe9\.txt.*not UTF-8"):
        list_files(str(tmp_path))
    assert list_files(str(tmp_path), exclude=["caf*"]) == []


def test_hash_counts_bytes_and_lines_across_chunks(tmp_path: Path) -> None:
    content = b"line\n" * (CHUNK_BYTES // 5 + 7) + b"no newline at the end"
    (tmp_path / "big").write_bytes(content)
    assert hash_file(str(tmp_path), "big") == {
        "path": "big",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "lines": content.count(b"\n"),
    }


def test_hash_knows_other_algorithms_and_names_them_for_an_unknown_one(folder: Path) -> None:
    assert hash_file(str(folder), "a.txt", algorithm="md5")["md5"] == hashlib.md5(b"").hexdigest()
    for unusable in ("sha257", "shake_128"):
        with pytest.raises(ValueError, match="sha256"):
            hash_file(str(folder), "a.txt", algorithm=unusable)


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../outside.py", "sub/../../outside.py", "out.py", "sub/loop/b.py", "sub", "a\0b"]
)
def test_hash_refuses_what_is_not_a_file_in_the_folder(folder: Path, path: str) -> None:
    with pytest.raises(NotInFolder):
        hash_file(str(folder), path)


def test_hash_does_not_wait_for_a_named_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(NotInFolder, match="not a regular file"):
        hash_file(str(folder), "pipe")
    assert "pipe" not in paths(list_files(str(folder)))


def test_hash_accepts_a_folder_that_is_itself_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert hash_file(str(tmp_path / "link"), "b.py")["bytes"] == 2
