"""What expressions give: plain paths without CEL, everything else through it, and messages that say what is absent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.definition.expressions import Condition, Expression, ItemSource, Scope, Template, WrongExpression
from orchestration.errors import ExpressionError

PAYLOAD = {
    "a": {"b": [1, {"c": "x"}], "x-y": 2, "é": 3},
    "n": None, "t": True, "f": 1.5, "s": "text", "i": 7, "items": [1, 2, 3], "empty": {},
}  # fmt: skip


WITHOUT_NUL = st.text(alphabet=st.characters(exclude_characters="\x00", codec="utf-8"), max_size=8)


class LazyTasks(Mapping[str, object]):
    """Like the engine's: it must only be asked for what an expression names."""

    def __init__(self, tasks: dict[str, object]) -> None:
        self._tasks = tasks
        self.read: list[str] = []

    def __getitem__(self, name: str) -> object:
        self.read.append(name)
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


def scope(**parts: object) -> Scope:
    tasks = {"x": {"result": {"y": [10, 20]}, "status": "succeeded"}, "x-y": {"result": 5}, "other": {"result": 6}}
    return Scope(PAYLOAD, LazyTasks(tasks), session={"id": "s1"}, **parts)


def value_of(text: str, **parts: object) -> object:
    return Expression.of(text).evaluate(scope(**parts))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("payload.a.b[1].c", "x"),
        ('payload["a"]["x-y"]', 2),
        ("payload['a']['é']", 3),
        ("payload.a[ 'b' ][0]", 1),
        ("tasks.x.result.y[1]", 20),
        ('tasks["x-y"].result', 5),
        ("tasks['x-y'].result + 1", 6),
        ("tasks.x.result.y.map(i, i * 2)", [20, 40]),
        ("session.id", "s1"),
        ("payload.n", None),
        ("payload.i + 1", 8),
        ("payload.f * 2.0", 3.0),
        ("payload.s + '!'", "text!"),
        ("payload.s == 'payload.s'", False),
        ("has(payload.a.zz)", False),
        ("has(payload.a.b) && payload.a.b.size() == 2", True),
        ("has(payload.zz) ? payload.zz : 'none'", "none"),
        ("payload.t || payload.zz.y", True),
        ("payload.?zz.orValue(3)", 3),
        ("payload.a.?b[0].orValue(3)", 1),
        ("payload.items.filter(i, i > 1).size()", 2),
        ("payload.items.exists(x, x == payload.i - 4)", True),
        ("{'tasks': payload.i}", {"tasks": 7}),
        ("[payload.i, 1.5, null, true, 'a']", [7, 1.5, None, True, "a"]),
        ("size(payload.items) // payload.zz\n + 1", 4),
        ("'é'.size()", 1),
        ("math.greatest(1, payload.i)", 7),
        ("payload.s.upperAscii().replace('T', '')", "EX"),
        ("1 in payload.items", True),
    ],
)  # fmt: skip
def test_expressions_give_json(text: str, value: object) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("payload.zz", 'payload has no field "zz"; it has a, n, t, f, s, …'),
        ("payload.a.b[2]", "payload.a.b has 2 elements, so there is no element 2"),
        ("payload.empty.x", 'payload.empty has no field "x"; it is empty'),
        ("payload.s.x", 'payload.s is a string, so it has no field "x"'),
        ("payload.i[0]", "payload.i is a number, so it has no element 0"),
        ("payload.zz + 1", 'payload has no field "zz"'),
        ('payload.a["x-z"] == 1', 'payload.a has no field "x-z"'),
        ("item", "item exists only in an action with for_each"),
        ("item.x + 1", "item exists only in an action with for_each"),
        ("payload.s + 1", "no matching overloads"),
        ("payload.f + payload.i", "whole numbers and decimals don't mix"),
        ("payload.i / 0", "divide by zero"),
        ("9223372036854775807 + payload.i", "overflow"),
        ("0.0 / 0.0", "no JSON number"),
        ("b'x'", "bytes"),
        ("timestamp('2026-01-01T00:00:00Z')", "a timestamp"),
        ("{1: 2}", "keys are not strings"),
        ("optional.of(1)", "orValue"),
        ("payload.items.zz(1)", ""),
    ],
)  # fmt: skip
def test_what_fails_at_run_time_says_why(text: str, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        value_of(text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "offset", "words"),
    [
        ("", 0, "empty"),
        ("1 +", 3, "syntax error"),
        ("paylod.a == 1", 0, "did you mean payload?"),
        ("payload.a.b.c == foo.bar", 17, "unknown name 'foo'; expressions know payload, tasks"),
        ("tasks", 0, "must be followed by the name of an action"),
        ("1 + tasks[payload.s].result", 4, "must be followed by the name of an action"),
        ("has(tasks.x)", 4, "must be followed by the name of an action"),
        ("tasks.map(x, x)", 0, "must be followed by the name of an action"),
        ("payload.items.map(item, 1)", 18, "can't call its variable item"),
        ("payload.a.b == 'a' + 1", 19, "no matching overload"),
        ("+".join(["payload.i"] * 60), 0, "nested too deep"),
        ("".join(f"payload.items.exists(x{n}, true) && " for n in range(4)) + "true", 0, "at most 3"),
        ("'" + "x" * 2047 + "'", 0, "at most 2048"),
    ],
)
def test_wrong_expressions_are_found_before_the_run(text: str, offset: int, words: str) -> None:
    with pytest.raises(WrongExpression) as caught:
        Expression.of(text).check()
    assert words in str(caught.value)
    assert caught.value.offset == offset


def test_only_the_named_tasks_are_read() -> None:
    looked_at = scope()
    expression = Expression.of('tasks.x.result.y[0] + tasks["x-y"].result')
    assert expression.references == {"x", "x-y"}
    assert expression.evaluate(looked_at) == 15
    assert isinstance(looked_at.tasks, LazyTasks)
    assert set(looked_at.tasks.read) == {"x", "x-y"}


@pytest.mark.parametrize(
    ("text", "references", "uses_item"),
    [
        ("'tasks.a.result ' + payload.s", set(), False),
        ("payload.tasks.a", set(), False),
        ("payload.item + 1", set(), False),
        ("tasks.a.result.tasks.b", {"a"}, False),
        ("item_index + 1", set(), True),
        (".tasks.a.result == 1", {"a"}, False),
        ("[1].map(x, tasks.a.result + item)", {"a"}, True),
        ("payload.?item.orValue(1)", set(), False),
        ("1 in tasks.a.result", {"a"}, False),
        (r'tasks["\x61\u0062"].result', {"ab"}, False),
        ("tasks.a.result // tasks.b.result", {"a"}, False),
        ("tasks.a.result == r'\\' && tasks.b.result", {"a", "b"}, False),
    ],
)
def test_references_are_found_in_the_source(text: str, references: set[str], uses_item: bool) -> None:
    expression = Expression.of(text)
    assert expression.references == frozenset(references)
    assert expression.uses_item is uses_item


def test_a_whole_task_is_a_plain_dict() -> None:
    """The engine's views of tasks never leave an expression."""
    view = LazyTasks({"result": 1, "status": "succeeded"})
    for text in ("tasks.a", "[tasks.a][0]"):
        value = Expression.of(text).evaluate(Scope({}, {"a": view}))
        assert type(value) is dict
        assert value == {"result": 1, "status": "succeeded"}


def test_a_plain_path_gives_the_value_itself_however_large() -> None:
    """Results may be larger than what CEL is given."""
    large = [{"x": "y" * 1000}] * 10_000
    assert Expression.of("payload").evaluate(Scope(large)) is large
    assert Expression.of("tasks.a.result").evaluate(Scope({}, {"a": {"result": large}})) is large
    with pytest.raises(ExpressionError, match="only plain paths"):
        Expression.of("payload.size() == 1").evaluate(Scope(large))


def test_what_an_expression_does_not_use_costs_nothing() -> None:
    payload = {"large": ["x" * 1000] * 10_000, "small": 1, "not JSON": object()}
    assert Expression.of("payload.small + 1").evaluate(Scope(payload)) == 2


def test_an_item_is_seen_in_one_scope_after_another() -> None:
    one = scope()
    template = Template({"index": "${{ item_index }}", "value": "${{ item.x * 2 }}"})
    assert template.uses_item
    for index in range(3):
        one.item, one.item_index = {"x": index}, index
        assert template.render(one) == {"index": index, "value": 2 * index}


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        ("${{ payload.i }}", 7),
        (" ${{ payload.i }}", " 7"),
        ("${{payload.i}}${{payload.s}}", "7text"),
        ("${{ payload.n }} ${{ payload.t }} ${{ payload.f }} ${{ payload.a }}",
         'null true 1.5 {"b":[1,{"c":"x"}],"x-y":2,"é":3}'),
        ("${{ '}}' + payload.s }}!", "}}text!"),
        ("${{ {'a': {'b': payload.i}} }}", {"a": {"b": 7}}),
        ("$${{ payload.i }}", "${{ payload.i }}"),
        ("a $${{ x }} ${{ payload.i }}", "a ${{ x }} 7"),
        ("$${{", "${{"),
        ("$ {{ }} $", "$ {{ }} $"),
        ([1, "${{ payload.i }}", ["${{ payload.s }}"], "$${{"], [1, 7, ["text"], "${{"]),
        ({"a": {"b": "${{ payload.i }}", "c": 1}, "d": []}, {"a": {"b": 7, "c": 1}, "d": []}),
        ({"a": "$${{ b"}, {"a": "${{ b"}),
        (None, None),
    ],
)  # fmt: skip
def test_templates_render_strings_wherever_they_stand(value: object, rendered: object) -> None:
    assert Template(value).render(scope()) == rendered


def test_a_template_without_expressions_is_rendered_once() -> None:
    template = Template({"a": [1, 2]})
    assert template.render(scope()) is template.render(scope())


@pytest.mark.parametrize("text", ["${{", "a ${{ b", "${{ {'a': 1 }}", "${{ }}", "${{ " + "x" * 100_000])
def test_templates_with_unfinished_expressions_are_refused(text: str) -> None:
    with pytest.raises(WrongExpression):
        Template(text)


def test_text_can_not_be_multiplied_without_end() -> None:
    template = Template("${{ payload }}" * 1000)
    with pytest.raises(ExpressionError, match="longer than"):
        template.render(Scope("x" * 1_000_000))


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        (True, True), (False, False), ("true", True), ("payload.t", True), ("${{ payload.t }}", True),
        ("payload.i == 7", True), ("  ${{ payload.i > 7 }} ", False), ("!payload.t", False),
    ],
)  # fmt: skip
def test_conditions_are_true_or_false(condition: str | bool, value: bool) -> None:
    assert Condition(condition).evaluate(scope()) is value


@pytest.mark.parametrize("condition", ["payload.i", "payload.n", "payload.s", "payload.i + 1"])
def test_a_condition_that_is_neither_fails(condition: str) -> None:
    with pytest.raises(ExpressionError, match="must be true or false"):
        Condition(condition).evaluate(scope())


@pytest.mark.parametrize(
    ("source", "items"),
    [
        ("${{ payload.items }}", [1, 2, 3]),
        ("payload.items", [1, 2, 3]),
        ("payload.items.map(x, x + 1)", [2, 3, 4]),
        ([1, "${{ payload.i }}"], [1, 7]),
        ([], []),
        ({"range": 3}, range(3)),
        ({"range": 0}, range(0)),
        ({"range": "payload.i"}, range(7)),
        ({"range": "${{ payload.items.size() }}"}, range(3)),
    ],
)
def test_items_are_a_list_or_a_range(source: str, items: object) -> None:
    assert ItemSource(source).resolve(scope()) == items


@pytest.mark.parametrize("source", ["payload.a", "payload.s", "payload.n", {"range": "payload.s"},
                                    {"range": "0 - 1"}, {"range": "payload.t"}, {"range": "payload.f"}])  # fmt: skip
def test_what_is_no_list_fails(source: str) -> None:
    with pytest.raises(ExpressionError, match="for_each"):
        ItemSource(source).resolve(scope())


@given(st.text(alphabet="payloditems.[]()'\"\\x0123 +{}$&|?:,\n", max_size=60))
def test_any_text_is_an_expression_or_is_refused(text: str) -> None:
    """Nothing but ExpressionError comes out, at definition time and at run time."""
    try:
        expression = Expression.of(text)
        expression.check()
        expression.evaluate(scope())
        Template(text).render(scope())
    except ExpressionError:
        pass


@pytest.mark.parametrize("payload", ["a\x00b", {"a\x00b": 1}])
def test_strings_that_cel_would_cut_off_are_refused(payload: object) -> None:
    with pytest.raises(ExpressionError, match="NUL"):
        Expression.of("[payload][0]").evaluate(Scope(payload))


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | WITHOUT_NUL
                    | st.floats(allow_nan=False, allow_infinity=False),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WITHOUT_NUL, inner, max_size=4),
                    max_leaves=15))  # fmt: skip
def test_values_come_back_from_cel_as_they_went_in(value: object) -> None:
    assert Expression.of("[payload][0]").evaluate(Scope(value)) == value
