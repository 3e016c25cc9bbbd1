"""Reading recordings: every version, compressed or not, and files that are none."""

from __future__ import annotations

import copy
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestration.errors import DefinitionError, Problem
from parallelizer.wfformat.reader import MAX_BYTES, read_recording
from parallelizer.wfformat.recording import Recording
from tests.support.recordings import LOAVES, LOAVES_EDGES, LOAVES_TASKS, loaves


def only_problem_of(path: Path, **options: Any) -> Problem:
    with pytest.raises(DefinitionError) as caught:
        read_recording(path, **options)
    assert len(caught.value.problems) == 1, caught.value.problems
    return caught.value.problems[0]


def written(folder: Path, content: bytes | object, name: str = "recording.json") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def in_the_first_version(version: str) -> Any:
    """Ours as the versions before 1.3 would have it: `jobs` instead of `tasks`."""
    document = loaves("1.3")
    document["schemaVersion"] = version
    document["workflow"]["jobs"] = document["workflow"].pop("tasks")
    return document


def test_every_version_gives_the_same_graph_and_run_times(tmp_path: Path) -> None:
    recordings = {version: read_recording(path) for version, path in LOAVES.items()}
    for version in ("1.0", "1.1", "1.2"):
        recordings[version] = read_recording(written(tmp_path, in_the_first_version(version)))
    assert {version: recording.schema_version for version, recording in recordings.items()} == {
        version: version for version in ("1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6")
    }
    first: Recording = recordings["1.3"]
    assert len(first.tasks) == LOAVES_TASKS
    assert len(list(first.edges)) == LOAVES_EDGES
    assert all(recording.tasks == first.tasks for recording in recordings.values())
    assert {recording.makespan_seconds for recording in recordings.values()} == {40.0, 0.0}


def test_a_compressed_recording_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    packed = gzip.compress(LOAVES["1.5"].read_bytes())
    for name in ("recording.json.gz", "recording"):
        assert read_recording(written(tmp_path, packed, name)) == read_recording(LOAVES["1.5"])


def test_a_byte_order_mark_and_what_we_do_not_read_do_no_harm(tmp_path: Path) -> None:
    document = loaves()
    document["workflow"]["execution"]["tasks"][0]["avgCPU"] = float("nan")
    document["workflow"]["execution"]["makespanInSeconds"] = "unknown"
    recording = read_recording(written(tmp_path, b"\xef\xbb\xbf" + json.dumps(document).encode()))
    assert recording.tasks == read_recording(LOAVES["1.5"]).tasks
    assert recording.makespan_seconds is None


def test_an_edge_that_is_named_twice_is_one_edge(tmp_path: Path) -> None:
    document = loaves()
    mix = document["workflow"]["specification"]["tasks"][3]
    mix["parents"] *= 2
    assert read_recording(written(tmp_path, document)) == read_recording(LOAVES["1.5"])


def test_a_chain_of_ten_thousand_tasks_is_read(tmp_path: Path) -> None:
    tasks = [{"name": f"t{n}", "runtime": 1, "parents": [f"t{n - 1}"] if n else []} for n in range(10_000)]
    document = {"name": "chain", "schemaVersion": "1.3", "workflow": {"tasks": tasks}}
    assert len(read_recording(written(tmp_path, document)).in_order()) == 10_000


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "not JSON", "a definition is run without --wfformat"),
        (b"name: x\n", "not JSON", "a definition is run without --wfformat"),
        (b"[]", "not WfFormat: a recording is an object, but this is a list", ""),
        (b"{}", "not WfFormat: it has no schemaVersion and workflow", ""),
        (b'{"name": "x", "actions": {}}', "not WfFormat", "leave --wfformat out"),
        (b'{"a": 1, "a": 2}', "'a' is here twice", ""),
        (b"[" * 200 + b"]" * 200, "nested more than 100 deep", ""),
        ("{'é'}".encode("latin-1"), "not UTF-8: byte 0xe9 at 2", "save it as UTF-8"),
        (gzip.compress(b"{}", mtime=0)[:-9], "its compression is broken", "get the file again"),
        (b"\x1f\x8bnothing", "its compression is broken", "get the file again"),
        (gzip.compress(b" " * (MAX_BYTES + 1), mtime=0), "larger than 67,108,864 bytes when unpacked", ""),
    ],
    ids=lambda value: str(value[:24]),
)
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, content: bytes, message: str, hint: str) -> None:
    path = written(tmp_path, content)
    problem = only_problem_of(path)
    assert problem.file == str(path)
    assert message in problem.message
    assert hint in problem.hint


def test_a_place_where_there_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    for name, message in (
        ("nowhere", "there is no such file"), (".", "a folder, not a file"), ("pipe", "not a file"),
        ("large", "larger than"), ("nowhere/below", "there is no such file"), ("pipe/below", "can't be read"),
    ):  # fmt: skip
        assert message in only_problem_of(tmp_path / name).message


def test_more_tasks_than_actions_are_allowed_are_refused() -> None:
    problem = only_problem_of(LOAVES["1.6"], max_tasks=12)
    assert "13 tasks; at most 12 are allowed (MAX_ACTIONS)" in problem.message
    assert read_recording(LOAVES["1.6"], max_tasks=13)


def test_mistakes_without_number_are_not_all_told(tmp_path: Path) -> None:
    document = loaves("1.4")
    task = document["workflow"]["tasks"][0]
    document["workflow"]["tasks"] = [copy.deepcopy(task) for _ in range(5000)]
    with pytest.raises(DefinitionError) as caught:
        read_recording(written(tmp_path, document))
    assert len(caught.value.problems) == 100
    assert "there may be more" in caught.value.problems[-1].hint
