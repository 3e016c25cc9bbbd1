"""Random definitions for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from orchestration.vocabulary import TriggerRule

TEXT = st.text(alphabet=st.characters(exclude_characters="\x00$", codec="utf-8"), max_size=12)
LOOKS_LIKE = st.sampled_from(["on", "yes", "no", "null", "~", "1e3", "0o17", "1_0", "0x1F", "2026-01-01", ".5", " x ",
                              "a: b", "# c", "- x", "line\nline\n", "tab\t", "é\u2028", "${{ payload.x }}", ".inf",
                              "9223372036854775808", "<<", "=", "!x", "&x", "*x", "x  \ny"])  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT | LOOKS_LIKE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
QUEUES = st.sampled_from([None, None, "gpu", "cpu"])


@st.composite
def graphs(draw: st.DrawFn, max_actions: int = 14) -> dict[str, list[str]]:
    """A graph: node → direct predecessors, in an order that need not be topological."""
    size = draw(st.integers(1, max_actions))
    names = [f"n{number}" for number in range(size)]
    graph = {
        name: draw(st.lists(st.sampled_from(names[:number]), unique=True, max_size=3)) if number else []
        for number, name in enumerate(names)
    }
    return {name: graph[name] for name in draw(st.permutations(names))}


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """A definition without mistakes, with every kind of part."""
    actions: dict[str, dict[str, Any]] = {}
    for name, needs in draw(graphs(8)).items():
        action: dict[str, Any] = {"uses": "sample.anything"}
        if needs:
            action["needs"] = needs
        parts: dict[str, st.SearchStrategy[Any]] = {
            "with": st.dictionaries(st.sampled_from(["x", "y", "z"]), VALUES, max_size=3),
            "for_each": st.just({"range": 3}) | st.lists(VALUES, max_size=2) | st.just("${{ payload.items }}"),
            "if": st.booleans() | st.just("payload.x == 1"),
            "trigger_rule": st.sampled_from([rule.value for rule in TriggerRule]),
            "retry": st.fixed_dictionaries(
                {"max_attempts": st.integers(1, 9)},
                optional={"delay_seconds": st.floats(0, 10), "retry_on": st.lists(st.just("OSError"), max_size=1)},
            ),
            "timeout_seconds": st.integers(1, 100) | st.floats(0.1, 10),
            "queue": st.sampled_from(["gpu", "branches"]),
            "continue_on_failure": st.booleans(),
            "durability": st.sampled_from(["normal", "sync"]),
        }
        for key in draw(st.sets(st.sampled_from(sorted(parts)), max_size=4)):
            action[key] = draw(parts[key])
        actions[name] = action
    top = {"name": "w", "description": draw(TEXT), "output": draw(VALUES), "actions": actions}
    dispatch = draw(st.sampled_from([None, "counted", "chord"]))
    return {**top, "dispatch": dispatch} if dispatch else top
