"""All mistakes of a definition are found at once, each with file, line, column, field and the nearest right name."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.definition import load_definition
from orchestration.errors import DefinitionError
from orchestration.plan import compile_plan
from tests.unit.definition.mistakes import one_action, only_problem_of, problems_of

MANY_MISTAKES = """\
name: bad name
limts: {}
limits: {max_concurrent_branches: 0, branch_timeout_seconds: -1}
actions:
  a: {uses: sample.nop, needs: [c]}
  b: {uses: sample.noop, needs: [a, a, zz, b], with: {x: 1}}
  c: {uses: sample.ship, needs: [b], with: {sku: 5, cuont: 2}, if: "payload.x +", retry: {}}
  d: {uses: sample.ship, with: {sku: "ok ${{ payld.x }}", count: "${{ tasks.a.result }}"}, if: "1 + 1"}
  e:
    uses: sample.noop
    max_concurrent: 3
    for_eech: 1
    trigger_rule: al_success
    if: item > 1 && tasks[payload.x].result
    timeout_seconds: "3"
"""


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(MANY_MISTAKES)
    found = problems_of(path)
    assert all(problem.file == str(path) for problem in found)
    assert [(p.line, p.column, p.field, p.message.split(";")[0][:60], p.hint[:27]) for p in found] == [
        (1, 7, "name", "a name has 1 to 128 of the characters A-Z a-z 0-9 _ . - and ", ""),
        (2, 1, "limts", "unknown key 'limts'", "did you mean limits?"),
        (3, 35, "limits.max_concurrent_branches", "must be greater than or equal to 1", ""),
        (3, 62, "limits.branch_timeout_seconds", "must be greater than 0", ""),
        (5, 13, "actions.a.uses", "unknown action 'sample.nop'", "did you mean sample.noop or"),
        (5, 32, "actions.a.needs", "a cycle, so none of these can start: a → b → c → a", "each waits for the one befo"),
        (6, 37, "actions.b.needs[1]", "a is named twice", ""),
        (6, 40, "actions.b.needs[2]", "there is no action 'zz'", ""),
        (6, 44, "actions.b.needs[3]", "b can't need itself", ""),
        (6, 55, "actions.b.with.x", "sample.noop has no input 'x'", "its inputs: none"),
        (7, 50, "actions.c.with.sku", "the input sku of sample.ship must be a valid string", ""),
        (7, 53, "actions.c.with.cuont", "sample.ship has no input 'cuont'", "did you mean count?"),
        (7, 80, "actions.c.if", "wrong expression: syntax error: mismatched input '<EOF>' exp", ""),
        (7, 90, "actions.c.retry", "max_attempts is missing", ""),
        (8, 46, "actions.d.with.sku", "wrong expression: unknown name 'payld'", ""),
        (8, 70, "actions.d.with.count", "the expression reads tasks.a, which does not run before d", "add a to needs"),
        (8, 96, "actions.d.if", "the expression must give true or false, but gives a number", ""),
        (11, 5, "actions.e.max_concurrent", "max_concurrent is for actions with for_each", ""),
        (12, 5, "actions.e.for_eech", "unknown key 'for_eech'", "did you mean for_each?"),
        (13, 19, "actions.e.trigger_rule", "'al_success' is not one of all_success, all_done, always, on", ""),
        (14, 21, "actions.e.if", "wrong expression: tasks must be followed by the name of an a", ""),
        (15, 22, "actions.e.timeout_seconds", "must be a number", ""),
    ]


def test_json_and_dict_report_the_same_mistakes_without_or_with_their_places() -> None:
    value = {"name": "w", "actions": {"a": {"uses": "sample.noop", "needs": ["b"]}}}
    assert str(only_problem_of(value)) == "actions.a.needs[0]: there is no action 'b'"
    text = json.dumps(value, indent=1)
    assert str(only_problem_of(text, file="w.json")) == "w.json:7:5: actions.a.needs[0]: there is no action 'b'"


@pytest.mark.parametrize(
    ("action", "field", "words"),
    [
        ({"uses": "celery:proj.add"}, "actions.a.uses", "not supported yet"),
        ({"uses": 5}, "actions.a.uses", "must be a string; it is a number"),
        ({"with": []}, "actions.a.with", "must be a mapping; it is a list"),
        ({"needs": {"b": 1}}, "actions.a.needs", "must be a list"),
        ({"needs": [1]}, "actions.a.needs[0]", "must be a string"),
        ({"uses": "sample.ship"}, "actions.a", "sample.ship needs the input 'sku'"),
        ({"uses": "sample.ship", "with": {"sku": "x", "tags": ["a", 2]}}, "actions.a.with.tags", "tags[1]"),
        ({"uses": "sample.ship", "with": {"sku": "x", "count": "2"}}, "actions.a.with.count", "valid integer"),
        ({"for_each": 5}, "actions.a.for_each", "must be an expression, a list or {range: N}; it is a number"),
        ({"for_each": None}, "actions.a.for_each", "it is null"),
        ({"for_each": {"range": -1}}, "actions.a.for_each", "at least 0"),
        ({"for_each": {"rnge": 1}}, "actions.a.for_each", "{range: N}"),
        ({"for_each": "${{ 5 }}"}, "actions.a.for_each", "must give a list, but gives a number"),
        ({"for_each": {"range": "'a'"}}, "actions.a.for_each.range", "must give a whole number, but gives a string"),
        ({"for_each": "a ${{ payload.x }} b"}, "actions.a.for_each", "one expression and nothing else"),
        ({"for_each": ["${{ item }}"]}, "actions.a.for_each[0]", "item is known only in"),
        ({"if": 5}, "actions.a.if", "must be an expression or true or false; it is a number"),
        ({"if": "item == 1"}, "actions.a.if", "item is known only in"),
        ({"if": "'a'"}, "actions.a.if", "must give true or false, but gives a string"),
        ({"if": ""}, "actions.a.if", "the expression is empty"),
        ({"if": "true || " * 400 + "true"}, "actions.a.if", "at most 2048"),
        ({"if": "tasks.a.status == 'x'"}, "actions.a.if", "a's own result"),
        ({"if": "tasks.zz.status == 'x'"}, "actions.a.if", "does not exist: 'zz'"),
        ({"retry": {"max_attempts": 0}}, "actions.a.retry.max_attempts", "must be greater than or equal to 1"),
        ({"retry": {"max_attempts": True}}, "actions.a.retry.max_attempts", "must be a whole number; it is a boolean"),
        ({"retry": {"max_attempts": 2, "jitter": 2}}, "actions.a.retry.jitter", "less than or equal to 1"),
        ({"retry": {"max_attempts": 2, "dealy_seconds": 2}}, "actions.a.retry.dealy_seconds", "unknown key"),
        ({"timeout_seconds": 0}, "actions.a.timeout_seconds", "must be greater than 0"),
        ({"queue": "a|b"}, "actions.a.queue", "a name has"),
        ({"durability": "always"}, "actions.a.durability", "'always' is not one of normal, sync"),
        ({"continue_on_failure": "yes"}, "actions.a.continue_on_failure", "must be true or false; it is a string"),
        ({"rate_limit": "100/d"}, "actions.a.rate_limit", "must be like 10/s, 100/m or 1000/h"),
        ({"rate_limit": "-5/s"}, "actions.a.rate_limit", "it is '-5/s'"),
        ({"rate_limit": 100}, "actions.a.rate_limit", "it is 100"),
        ({"rate_limit": "100/m burst 0"}, "actions.a.rate_limit", "burst 20"),
        ({"max_concurrent": 20_000, "for_each": [1]}, "actions.a.max_concurrent", "less than or equal to 10000"),
        ({"inputs": {}}, "actions.a.inputs", "unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_action_is_named_with_its_field(action: dict[str, object], field: str, words: str) -> None:
    problem = only_problem_of(one_action(**action))
    assert problem.field == field
    assert words in problem.message


@pytest.mark.parametrize("name", ["", ".a", "-a", "a b", "a:b", "a|b", "a;b", "é", "a" * 129, "a\n"])
def test_names_that_would_break_messages_are_refused(name: str) -> None:
    problems = problems_of({"name": name, "actions": {"a": {"uses": "sample.noop"}}})
    assert [problem.field for problem in problems] == ["name"]
    assert problems_of({"name": "w", "actions": {name: {"uses": "sample.noop"}}})


def test_names_of_recorded_workflows_are_accepted() -> None:
    name = "NFCORE_RNASEQ.RNASEQ-x_15"
    definition = load_definition(
        {"name": "0.w-1", "actions": {name: {"uses": "sample.noop"},
         "b": {"uses": "sample.echo", "needs": name, "with": {"value": f'${{{{ tasks["{name}"].result }}}}'}}}}
    )  # fmt: skip
    assert definition.actions["b"].needs == (name,)


@pytest.mark.parametrize(
    ("part", "field", "words"),
    [
        ({"payload_schema": {"type": "objct"}}, "payload_schema.type", "not a JSON Schema"),
        ({"payload_schema": {"$ref": "http://127.0.0.1:1/x.json"}}, "payload_schema", "only references within"),
        ({"payload_schema": {"$ref": "file:///etc/passwd"}}, "payload_schema", "only references within"),
        ({"payload_schema": {"$schema": "http://127.0.0.1:1/x.json"}}, "payload_schema", ""),
        ({"payload_schema": {"pattern": "(", "type": "string"}}, "payload_schema", "can't be used"),
        ({"payload_schema": [1]}, "payload_schema", "must be a mapping"),
        ({"limits": {"max_concurrent_branches": 10_001}}, "limits.max_concurrent_branches", "10000"),
        ({"limits": {"max_concurrent_branches": 1.5}}, "limits.max_concurrent_branches", "a whole number"),
        ({"limits": {"weight": 0}}, "limits.weight", "0.01"),
        ({"limits": {"weight": -1}}, "limits.weight", "0.01"),
        ({"limits": {"weight": 101}}, "limits.weight", "100"),
        ({"limits": {"weight": "high"}}, "limits.weight", "number"),
        ({"limits": {"weight": float("nan")}}, "limits.weight", "no JSON number"),
        ({"limits": {"rate_limit": "0/s"}}, "limits.rate_limit", "must be like 10/s, 100/m or 1000/h"),
        ({"dispatch": "direct"}, "dispatch", "'counted' or 'chord'"),
        ({"output": {"x": "${{ tasks.zz.result }}"}}, "output.x", "does not exist: 'zz'"),
        ({"output": "${{ item }}"}, "output", "item is known only"),
        ({"output": "${{ 1 +"}, "output", "no }}"),
        ({"actions": {}}, "actions", "at least 1"),
        ({"actions": None}, "actions", "must be a mapping; it is null"),
        ({"actions": {"a": None}}, "actions.a", "must be a mapping; it is null"),
    ],
)
def test_a_wrong_part_is_named_with_its_field(part: dict[str, object], field: str, words: str) -> None:
    problem = only_problem_of({**one_action(), **part})
    assert problem.field == field
    assert words in problem.message


def test_what_is_no_definition_at_all_is_refused() -> None:
    assert "but this is a list" in only_problem_of("[1]").message
    assert "but this is a string" in only_problem_of("hello").message
    assert {p.message for p in problems_of("a: 1")} == {"unknown key 'a'", "name is missing", "actions is missing"}


def test_wrong_encoding_is_named_with_its_place() -> None:
    problem = only_problem_of(b"name: w\ndescription: caf\xe9\n", file="w.yaml")
    assert str(problem) == "w.yaml:2:17: not UTF-8: byte 0xe9 can't be read (save it as UTF-8)"
    assert "UTF-16" in only_problem_of("name: w".encode("utf-16"), file="w.yaml").hint


def test_a_byte_order_mark_and_line_ends_of_windows_are_accepted() -> None:
    text = "name: w\r\nactions:\r\n  a: {uses: sample.noop}\r\n"
    assert load_definition(text.encode("utf-8-sig")).name == "w"


def test_files_that_can_not_be_read_are_refused(tmp_path: Path) -> None:
    assert str(only_problem_of(tmp_path / "x.yaml")).endswith("x.yaml: there is no such file")
    assert "a folder" in only_problem_of(tmp_path).message
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(50_000_000)
    assert "50000000 bytes" in only_problem_of(large).message
    assert "bytes" in only_problem_of(str(large)).message
    assert "can't be read" in only_problem_of("a\x00.yaml").message


def test_too_many_actions_are_refused() -> None:
    actions = {f"a{number}": {"uses": "sample.noop"} for number in range(11)}
    assert "11 actions; at most 10" in only_problem_of({"name": "w", "actions": actions}, max_actions=10).message
    definition = load_definition({"name": "w", "actions": actions})
    with pytest.raises(DefinitionError, match="at most 10"):
        compile_plan(definition, max_actions=10)


def test_several_cycles_are_all_named_edge_by_edge() -> None:
    needs = {"a": "b", "b": "a", "c": ["d"], "d": ["e"], "e": ["c", "f"], "f": [], "g": ["a"]}
    actions = {name: {"uses": "sample.noop", "needs": need} for name, need in needs.items()}
    messages = [problem.message for problem in problems_of({"name": "w", "actions": actions})]
    assert [message.partition(": ")[2] for message in messages] == ["a → b → a", "c → e → d → c"]


def test_a_cycle_through_thousands_of_actions_is_found() -> None:
    actions = {f"a{n}": {"uses": "sample.noop", "needs": [f"a{(n - 1) % 10_000}"]} for n in range(10_000)}
    problem = only_problem_of({"name": "w", "actions": actions})
    assert problem.message.startswith("a cycle, so none of these can start: a0 → a1 → a2")


def test_values_that_are_no_json_are_refused_in_dicts() -> None:
    shared: object = "x"
    for _ in range(60):
        shared = [shared, shared]
    cyclic: list[object] = []
    cyclic.append(cyclic)
    for value in ({1, 2}, b"x", float("nan"), 2**64, {1: 2}, cyclic, shared, "\x00"):
        assert problems_of(one_action(**{"uses": "sample.echo", "with": {"value": value}}))


def test_false_is_a_condition() -> None:
    assert load_definition("{name: w, actions: {a: {uses: sample.noop, if: false}}}").actions["a"].condition is False


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
        | st.sampled_from(["a", "b", "sample.noop", "sample.ship", "${{ tasks.a.result }}", "${{ item"]),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "actions", "a", "b", "uses", "with", "needs", "for_each", "if", "retry", "limits",
                             "payload_schema", "output", "range", "max_attempts", "queue"]) | st.text(max_size=3),
            inner, max_size=5,
        ),
        max_leaves=25,
    )
)  # fmt: skip
def test_any_value_is_a_definition_or_is_refused(value: object) -> None:
    """Fuzzed definitions give DefinitionError and nothing else, whatever is wrong with them."""
    for source in ({"name": "w", "actions": {"a": value, "b": value}}, {"name": "w", "actions": value}):
        with contextlib.suppress(DefinitionError):
            load_definition(source)


@given(
    st.integers(0, len(MANY_MISTAKES)),
    st.integers(0, 5),
    st.text(max_size=4) | st.sampled_from(list("\t\r\x85\u2028{}[]:'-|>")),
)
def test_any_damage_to_a_text_is_reported(at: int, length: int, text: str) -> None:
    damaged = MANY_MISTAKES[:at] + text + MANY_MISTAKES[at + length :]
    assert all(problem.message for problem in problems_of(damaged, file="w.yaml"))


def test_twenty_thousand_actions_are_checked_and_compiled_in_seconds() -> None:
    actions = {
        f"a{n}": {"uses": "sample.noop", "needs": [f"a{n - 1}"] if n else [], "if": "payload.run == true"}
        for n in range(20_000)
    }
    started = time.perf_counter()
    plan = compile_plan(load_definition({"name": "w", "actions": actions}))
    assert len(plan.branches) == 1
    # About 1 s on a quiet machine.
    assert time.perf_counter() - started < 10
