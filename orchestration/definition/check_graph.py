"""Checks of the graph: unknown, duplicate and self `needs`, cycles, and who runs before whom. Pure, no recursion."""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from orchestration.definition.places import Finding

#: Most separate cycles that are spelled out.
MAX_CYCLES = 20


@dataclass(frozen=True, slots=True)
class Graph:
    """The actions and what they need, as far as that can be understood."""

    #: All names in `needs`, as written.
    written: Mapping[str, tuple[object, ...]]
    #: The same without what is wrong: other actions that exist, each once.
    needs: Mapping[str, tuple[str, ...]]

    @staticmethod
    def of(actions: Mapping[str, Mapping[str, object]]) -> Graph:
        """Read the graph from raw actions."""
        written: dict[str, tuple[object, ...]] = {}
        for name, action in actions.items():
            needs = action.get("needs", ())
            written[name] = (
                (needs,) if isinstance(needs, str) else tuple(needs) if isinstance(needs, (list, tuple)) else ()
            )
        known = {
            name: tuple(dict.fromkeys(n for n in needs if isinstance(n, str) and n in written and n != name))
            for name, needs in written.items()
        }
        return Graph(written, known)

    def sorted(self) -> list[str]:
        """The names, each after what it needs; those on or behind a cycle are left out."""
        missing = {name: len(needs) for name, needs in self.needs.items()}
        followers: dict[str, list[str]] = {name: [] for name in self.needs}
        for name, needs in self.needs.items():
            for need in needs:
                followers[need].append(name)
        ready = deque(name for name, count in missing.items() if count == 0)
        order: list[str] = []
        while ready:
            name = ready.popleft()
            order.append(name)
            for follower in followers[name]:
                missing[follower] -= 1
                if missing[follower] == 0:
                    ready.append(follower)
        return order

    def ancestors_among(self, names: Iterable[str]) -> dict[str, int]:
        """For each action, which of `names` run before it, as a set of bits in the order of `names`."""
        bits = {name: 1 << position for position, name in enumerate(names)}
        before: dict[str, int] = {}
        for name in self.sorted():
            reached = 0
            for need in self.needs[name]:
                reached |= before[need] | bits.get(need, 0)
            before[name] = reached
        return before


def find_graph_mistakes(graph: Graph) -> list[Finding]:
    """Find wrong `needs` and cycles."""
    return [*_find_wrong_needs(graph), *_find_cycles(graph)]


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint with the names most like a misspelt one, or nothing."""
    # Comparing with 20,000 names takes a second; names of about the same length are enough.
    candidates = [other for other in names if abs(len(other) - len(name)) <= 3][:5000]
    near = difflib.get_close_matches(name, candidates, n=1)
    return f"did you mean {near[0]}?" if near else ""


def _find_wrong_needs(graph: Graph) -> Iterator[Finding]:
    for name, written in graph.written.items():
        if len(written) == len(graph.needs[name]):
            continue
        seen: set[str] = set()
        for position, need in enumerate(written):
            path = ("actions", name, "needs", position)
            if not isinstance(need, str):
                continue
            if need == name:
                yield Finding(path, f"{name} can't need itself")
            elif need not in graph.written:
                yield Finding(path, f"there is no action {need!r}", nearest(need, graph.written))
            elif need in seen:
                yield Finding(path, f"{need} is named twice")
            seen.add(need)


def _find_cycles(graph: Graph) -> Iterator[Finding]:
    left = set(graph.needs) - set(graph.sorted())
    for _ in range(MAX_CYCLES):
        cycle = _find_cycle(graph, left)
        if not cycle:
            return
        # In the direction of execution, from the action that comes first in the file.
        first = next(name for name in graph.needs if name in set(cycle))
        start = cycle.index(first)
        turned = [*cycle[start:], *cycle[:start], first]
        shown = turned if len(turned) <= 50 else [*turned[:25], "…", *turned[-24:]]
        yield Finding(
            ("actions", first, "needs"),
            f"a cycle, so none of these can start: {' → '.join(shown)}",
            "each waits for the one before it; take away one of these needs",
        )
        left -= set(cycle)


def _find_cycle(graph: Graph, left: set[str]) -> list[str]:
    """Find a cycle among the given actions, each followed by one that needs it; empty if there is none."""
    done: set[str] = set()
    for start in graph.needs:
        if start not in left or start in done:
            continue
        path: dict[str, Iterator[str]] = {start: iter(graph.needs[start])}
        while path:
            name = next(reversed(path))
            for need in path[name]:
                if need in path:
                    walked = list(path)
                    return walked[walked.index(need) :][::-1]
                if need in left and need not in done:
                    path[need] = iter(graph.needs[need])
                    break
            else:
                path.popitem()
                done.add(name)
    return []
