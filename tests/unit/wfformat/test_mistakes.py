"""Mistakes in recordings: each is told with its field and what to do, and nothing is read past it in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestration.errors import DefinitionError
from parallelizer.wfformat.reader import read_recording
from tests.support.recordings import loaves

Change = Callable[[Any], Any]


def spec(document: Any) -> Any:
    return document["workflow"]["specification"]["tasks"]


def runs(document: Any) -> Any:
    return document["workflow"]["execution"]["tasks"]


def tasks(document: Any) -> Any:
    return document["workflow"]["tasks"]


def mix_after_itself(document: Any) -> None:
    """mix → KNEAD → mix, in both lists."""
    spec(document)[3]["parents"].append("KITCHEN.BAKERY.KNEAD_5")
    spec(document)[4]["children"].append("mix_ID0000004")


#: Version, what is done to the document, and for each mistake its field and what is said.
MISTAKES: list[tuple[str, Change, list[tuple[str, str]]]] = [
    ("1.5", lambda d: d.update(schemaVersion="2.0"), [("schemaVersion", "version '2.0' of WfFormat is not known")]),
    ("1.5", lambda d: d.update(schemaVersion=1.5), [("schemaVersion", 'known are "1.0" to "1.6", as texts')]),
    ("1.5", lambda d: d.update(schemaVersion=None), [("schemaVersion", "is not known")]),
    ("1.5", lambda d: d.update(schemaVersion="1.4"), [("workflow.tasks", "that is its place in version 1.4")]),
    ("1.4", lambda d: d.update(schemaVersion="1.5"), [("workflow.specification.tasks", "must be a list")]),
    ("1.5", lambda d: d.update(workflow=3), [("workflow.specification.tasks", "it is not there")]),
    ("1.5", lambda d: d.pop("name"), [("", "name is missing")]),
    ("1.5", lambda d: d["workflow"]["specification"].update(tasks=[]), [("workflow.specification.tasks", "no task")]),
    ("1.5", lambda d: d["workflow"].pop("execution"), [("workflow.execution.tasks", "it is not there")]),
    ("1.5", lambda d: spec(d).append(7), [("workflow.specification.tasks[13]", "must be an object")]),
    ("1.5", lambda d: spec(d)[5].pop("id"), [
        ("workflow.execution.tasks[7].id", "there is no task 'clean-up'"),
        ("workflow.specification.tasks[3].children[1]", "there is no task with the id 'clean-up'"),
        ("workflow.specification.tasks[5]", "id is missing"),
    ]),
    ("1.3", lambda d: tasks(d)[5].update(name=""), [("workflow.tasks[5].name", "is empty")]),
    ("1.3", lambda d: tasks(d)[5].update(name=["x"]), [("workflow.tasks[5].name", "must be a text; it is a list")]),
    ("1.3", lambda d: tasks(d)[5].update(name="\ud800"), [("workflow.tasks[5].name", "no character")]),
    ("1.3", lambda d: tasks(d)[5].update(name="a\0"), [("workflow.tasks[5].name", "no character")]),
    ("1.3", lambda d: tasks(d)[5].update(name="mix_ID0000004"), [
        ("workflow.tasks[5].name", "'mix_ID0000004' is the name of tasks[3] as well"),
    ]),
    ("1.3", lambda d: tasks(d)[5].pop("runtime"), [("workflow.tasks[5]", "runtime is missing")]),
    ("1.3", lambda d: tasks(d)[5].update(runtime=-1), [("workflow.tasks[5].runtime", "-1 s is less than nothing")]),
    ("1.3", lambda d: tasks(d)[5].update(runtime=None), [("workflow.tasks[5].runtime", "it is null")]),
    ("1.3", lambda d: tasks(d)[5].update(runtime=True), [("workflow.tasks[5].runtime", "must be a number of seconds")]),
    ("1.3", lambda d: tasks(d)[5].update(runtime="2"), [("workflow.tasks[5].runtime", "it is a string")]),
    ("1.3", lambda d: tasks(d)[5].update(runtime=float("nan")), [("workflow.tasks[5].runtime", "nan is no number")]),
    ("1.3", lambda d: tasks(d)[5].update(runtime=float("inf")), [("workflow.tasks[5].runtime", "inf is no number")]),
    ("1.3", lambda d: tasks(d)[5].update(runtime=10**40), [("workflow.tasks[5].runtime", "the most that is read")]),
    ("1.4", lambda d: tasks(d)[5].pop("runtimeInSeconds"), [("workflow.tasks[5]", "the run time of 'clean-up'")]),
    ("1.5", lambda d: runs(d)[5].pop("runtimeInSeconds"), [("workflow.execution.tasks[5]", "run time of 'rise #2'")]),
    ("1.5", lambda d: runs(d)[5].update(runtimeInSeconds=-1), [
        ("workflow.execution.tasks[5].runtimeInSeconds", "-1 s is less than nothing; it is the run time of 'rise #2'"),
    ]),
    ("1.5", lambda d: runs(d).pop(5), [("workflow.specification.tasks[7]", "'rise #2' has no run time")]),
    ("1.5", lambda d: runs(d).append(runs(d)[5]), [
        ("workflow.execution.tasks[13].id", "'rise #2' has a run time in tasks[5] as well"),
    ]),
    ("1.5", lambda d: runs(d).append({"id": "clean-ups"}), [
        ("workflow.execution.tasks[13].id", "there is no task 'clean-ups' (did you mean clean-up?)"),
    ]),
    ("1.5", lambda d: spec(d)[3]["parents"].append("mix_ID000004"), [
        ("workflow.specification.tasks[3].parents[3]", "did you mean mix_ID0000004?"),
    ]),
    ("1.5", lambda d: spec(d)[3]["parents"].append("mix_ID0000004"), [
        ("workflow.specification.tasks[3].parents[3]", "'mix_ID0000004' can't be its own parent"),
    ]),
    ("1.5", lambda d: spec(d)[3]["parents"].append(None), [
        ("workflow.specification.tasks[3].parents[3]", "must be a text; it is null"),
    ]),
    ("1.5", lambda d: spec(d)[0].pop("parents"), [("workflow.specification.tasks[0]", "parents is missing")]),
    ("1.5", lambda d: spec(d)[0].update(parents="x"), [("workflow.specification.tasks[0].parents", "must be a list")]),
    ("1.5", lambda d: spec(d)[5]["children"].append("rise #1"), [
        ("workflow.specification.tasks[5].children[0]", "'rise #1' does not have 'clean-up' among its parents"),
    ]),
    ("1.5", lambda d: spec(d)[5].update(parents=[]), [
        ("workflow.specification.tasks[3].children[1]", "'clean-up' does not have 'mix_ID0000004' among its parents"),
    ]),
    ("1.5", mix_after_itself, [
        ("workflow.specification.tasks[3].parents", "mix_ID0000004 → KITCHEN.BAKERY.KNEAD_5 → mix_ID0000004"),
    ]),
    # parents that are named by the other of a task's two identities: each would become a root without a word
    ("1.4", lambda d: tasks(d)[5].update(parents=["ID0000004"]), [
        ("workflow.tasks[3].children[1]", "does not have 'mix_ID0000004' among its parents"),
        ("workflow.tasks[5].parents[0]", "version 1.4 has names there; this is the id of 'mix_ID0000004'"),
    ]),
    ("1.6", lambda d: spec(d)[5].update(parents=["mix"]), [
        ("workflow.specification.tasks[3].children[1]", "does not have 'mix_ID0000004' among its parents"),
        ("workflow.specification.tasks[5].parents[0]", "version 1.6 has ids there; this is the name of"),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "change", "expected"), MISTAKES, ids=[f"{number}-{m[2][0][0]}" for number, m in enumerate(MISTAKES)]
)
def test_a_mistake_is_told_with_its_field_and_what_to_do(
    tmp_path: Path, version: str, change: Change, expected: list[tuple[str, str]]
) -> None:
    document, path = loaves(version), tmp_path / "recording.json"
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DefinitionError) as caught:
        read_recording(path)
    told = sorted((problem.field, str(problem)) for problem in caught.value.problems)
    assert [field for field, _ in told] == [field for field, _ in expected]
    for (_, text), (_, message) in zip(told, expected, strict=True):
        assert text.startswith(f"{path}:1:")
        assert message in text
