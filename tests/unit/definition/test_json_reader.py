"""JSON is read strictly too, and its mistakes have places."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.definition.json_reader import find_json_places, read_json
from orchestration.definition.places import value_at
from orchestration.errors import DefinitionError
from tests.unit.definition.mistakes import only_problem_of, problems_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def test_a_syntax_error_has_its_place() -> None:
    problem = only_problem_of('{"name": "w",\n "actions": }', file="w.json")
    assert str(problem).startswith("w.json:2:13: not JSON: ")


def test_every_duplicate_key_has_its_place() -> None:
    text = '{"name": "w",\n "name": "x", "actions": {"a": 1,\n"a": 2}}'
    assert [(p.line, p.column, p.message) for p in problems_of(text, file="w.json")] == [
        (2, 2, "key 'name' is here twice"),
        (3, 1, "key 'a' is here twice"),
    ]


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("NaN", "no JSON number"),
        ("-Infinity", "no JSON number"),
        ("1e999", "no JSON number"),
        ("9223372036854775808", "64 bits"),
        ("-9223372036854775809", "64 bits"),
        ("1" * 10_000, "64 bits"),
        ('"\\u0000"', "NUL"),
        ('"\\ud800"', "surrogate"),
    ],
)
def test_what_json_allows_and_we_do_not_is_named_with_its_place(value: str, word: str) -> None:
    text = '{"name": "w", "actions": {"a": {"uses": "sample.noop",\n "with": {"x": VALUE}}}}'.replace("VALUE", value)
    problem = only_problem_of(text, file="w.json")
    assert word in problem.message
    assert (problem.field, problem.line, problem.column) == ("actions.a.with.x", 2, 16)


def test_depth_is_limited() -> None:
    assert "deep" in only_problem_of('{"a":' * 101 + "1" + "}" * 101, file="w.json").message
    assert "deep" in only_problem_of("[" * 1_000_000, file="w.json").message


def test_json_that_only_looks_deep_is_read() -> None:
    """Brackets in strings don't count."""
    assert read_json(json.dumps({"a": "[{" * 200 + '"'})) == {"a": "[{" * 200 + '"'}


@given(JSON, st.sampled_from([None, 1, 3]))
def test_every_value_has_a_place_and_is_found_there(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    places = find_json_places(text)
    lines = text.split("\n")
    for path, (line, column) in places.values.items():
        rest = "\n".join([lines[line - 1][column - 1 :], *lines[line:]])
        assert json.JSONDecoder().raw_decode(rest)[0] == value_at(value, path)


@given(st.text(max_size=100))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(DefinitionError):
        read_json(text)
