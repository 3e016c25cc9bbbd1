"""YAML is read strictly: bombs and surprises are refused, with their place."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.definition.yaml_reader import MAX_YAML_BYTES, MAX_YAML_DEPTH, read_yaml
from orchestration.errors import DefinitionError, Problem
from tests.unit.definition.mistakes import only_problem_of

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def refused(text: str) -> Problem:
    with pytest.raises(DefinitionError) as caught:
        read_yaml(text, "w.yaml")
    return caught.value.problems[0]


def test_scalars_are_those_of_yaml_1_2() -> None:
    """`on`, `yes` and `no` are strings; octal needs 0o; a date is a string."""
    text = "{on: yes, a: no, b: 010, c: 0o10, d: 0x1F, e: true, f: null, g: ~, h: 1e3, i: 2026-01-01, j: 1_000, k: '1'}"
    assert read_yaml(text) == {
        "on": "yes", "a": "no", "b": 10, "c": 8, "d": 31, "e": True, "f": None, "g": None, "h": 1000.0,
        "i": "2026-01-01", "j": "1_000", "k": "1",
    }  # fmt: skip


def test_an_alias_bomb_is_refused_at_its_first_anchor() -> None:
    started = time.perf_counter()
    problem = refused(BOMB)
    assert "anchor &a" in problem.message
    assert (problem.line, problem.column) == (1, 4)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("text", "line", "column", "word"),
    [
        ("a: 1\nb: *a\n", 2, 4, "alias"),
        ("a: 1\nb: 2\na: 3\n", 3, 1, "twice"),
        ("a:\n\tb: 1\n", 2, 1, "tab"),
        ("a: !!python/object:os.system x\n", 1, 4, "tag"),
        ("a: !x 1\n", 1, 4, "tag"),
        ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
        ("1: x\n", 1, 1, "must be a string"),
        ("true: x\n", 1, 1, "must be a string"),
        ("? [a, b]\n: x\n", 1, 3, "must be a string"),
        ("a: .nan\n", 1, 4, "no JSON number"),
        ("a: [1, -.inf]\n", 1, 8, "no JSON number"),
        ("a: 9223372036854775808\n", 1, 4, "64 bits"),
        ("a: " + "9" * 100_000 + "\n", 1, 4, "64 bits"),
        ("a: [1, 2\nb: 3\n", 2, 2, ""),
        ("a: 'x\n", 2, 1, ""),
        ("a: \x07\n", 1, 4, ""),
        ("", 0, 0, "nothing"),
        ("# only a comment\n", 0, 0, "nothing"),
    ],
)
def test_what_is_refused_is_named_with_its_place(text: str, line: int, column: int, word: str) -> None:
    problem = refused(text)
    assert word in problem.message
    assert (problem.line, problem.column) == (line, column)
    assert problem.file == "w.yaml"


def test_all_duplicate_keys_are_reported_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        read_yaml("a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert [(p.line, p.column) for p in caught.value.problems] == [(2, 1), (3, 11)]


def test_depth_is_limited() -> None:
    deepest = "[" * MAX_YAML_DEPTH + "]" * MAX_YAML_DEPTH
    assert read_yaml(deepest) is not None
    assert f"more than {MAX_YAML_DEPTH} deep" in refused(f"[{deepest}]").message
    assert "deep" in refused("[" * 400_000).message


def test_size_is_checked_before_parsing() -> None:
    started = time.perf_counter()
    problem = only_problem_of("a: [" + "x," * 25_000_000 + "]", file="w.yaml")
    assert "bytes" in problem.message
    assert str(MAX_YAML_BYTES) in only_problem_of("a: [" + "x," * MAX_YAML_BYTES + "]").message
    assert time.perf_counter() - started < 5


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No other exception than DefinitionError ever comes out."""
    with contextlib.suppress(DefinitionError):
        read_yaml(text)
