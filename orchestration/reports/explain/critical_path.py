"""The critical path of a run: the chain of tasks of which each began when the one before it had ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """When a task began and ended, in µs; the same twice for one that never ran."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return max(0, self.end - self.start)


def critical_path(spans: Mapping[str, Span], needs: Mapping[str, Sequence[str]]) -> list[str]:
    """The tasks that decided when the run ended, from the first to the last.

    The last is the one that ended last; before each task on the path comes that of its predecessors which ended last,
    since until then it could not begin. Of several that ended at the same moment, the one whose name comes first.

    Args: spans: tasks that have ended; others are left out, and so is what is known of no time. needs: direct
        predecessors; without cycles.
    """
    path: list[str] = []
    candidates: Sequence[str] = list(spans)
    while candidates:
        last = min(candidates, key=lambda name: (-spans[name].end, name))
        path.append(last)
        candidates = [need for need in needs.get(last, ()) if need in spans]
    return path[::-1]


def longest_chain(lengths: Mapping[str, int], needs: Mapping[str, Sequence[str]]) -> int:
    """The least time, µs, that the tasks take with nothing ever waiting: the longest chain of their lengths.

    Args: needs: direct predecessors; a task that has no length counts as 0.
    """
    chains: dict[str, int] = {}
    for first in needs:
        stack = [first]
        while stack:
            name = stack[-1]
            missing = [need for need in needs.get(name, ()) if need not in chains]
            if missing:
                stack += missing
                continue
            stack.pop()
            if name not in chains:
                before = max((chains[need] for need in needs.get(name, ())), default=0)
                chains[name] = before + lengths.get(name, 0)
    return max(chains.values(), default=0)
