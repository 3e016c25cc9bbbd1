"""Where the actions of a plan stand in a layered drawing: levels from left to right, few crossings. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestration.plan import Plan

#: Times that the order within the levels is improved; more changes little.
SWEEPS = 4
#: A long edge takes a place in each level it passes, so that it runs between the actions; not beyond this many places.
MAX_PASSAGES = 20_000


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions in a grid."""

    #: (level, row) of each action, both from 0; rows may be fractions.
    positions: Mapping[str, tuple[int, float]]
    #: For each edge that passes other levels, the points it passes through.
    passages: Mapping[tuple[str, str], Sequence[tuple[int, float]]]
    levels: int
    rows: int


def levels_of(plan: Plan) -> dict[str, int]:
    """For each action, the most actions in a row before it; in an order in which each comes after what it needs."""
    missing = {name: len(action.needs) for name, action in plan.actions.items()}
    levels = dict.fromkeys((name for name, count in missing.items() if count == 0), 0)
    ready = deque(levels)
    order: dict[str, int] = {}
    while ready:
        name = ready.popleft()
        order[name] = levels[name]
        for successor in plan.actions[name].successors:
            levels[successor] = max(levels.get(successor, 0), levels[name] + 1)
            missing[successor] -= 1
            if missing[successor] == 0:
                ready.append(successor)
    return order


def common_queue(plan: Plan) -> str:
    """The queue of most actions."""
    return Counter(action.queue for action in plan.actions.values()).most_common(1)[0][0]


# In the layout, a node is an action's name, or (from, to, level) for a passage of an edge.
_Node = str | tuple[str, str, int]


def lay_out(plan: Plan) -> Layout:
    """Place the actions of a plan."""
    levels = levels_of(plan)
    columns: list[list[_Node]] = [[] for _ in range(max(levels.values()) + 1)]
    for name, level in levels.items():
        columns[level].append(name)
    before: dict[_Node, list[_Node]] = {name: [] for name in levels}
    after: dict[_Node, list[_Node]] = {name: [] for name in levels}
    chains: dict[tuple[str, str], list[_Node]] = {}
    edges = [(name, successor) for name in levels for successor in plan.actions[name].successors]
    with_passages = sum(levels[end] - levels[start] - 1 for start, end in edges) <= MAX_PASSAGES
    for start, end in edges:
        chain: list[_Node] = []
        if with_passages:
            chain = [(start, end, level) for level in range(levels[start] + 1, levels[end])]
        for node in chain:
            assert isinstance(node, tuple)
            columns[node[2]].append(node)
            before[node], after[node] = [], []
        for one, other in zip([start, *chain], [*chain, end], strict=True):
            after[one].append(other)
            before[other].append(one)
        if chain:
            chains[start, end] = chain
    _untangle(columns, before, after)
    return _grid(columns, levels, chains)


def _untangle(
    columns: list[list[_Node]], before: Mapping[_Node, list[_Node]], after: Mapping[_Node, list[_Node]]
) -> None:
    """Sort each column by the mean place of its neighbours, from left to right and back."""
    place: dict[_Node, float] = {}
    for column in columns:
        _number(column, place)
    for sweep in range(SWEEPS):
        neighbours, walk = (before, columns) if sweep % 2 == 0 else (after, columns[::-1])
        for column in walk:
            mean = {
                node: sum(place[n] for n in neighbours[node]) / len(neighbours[node])
                if neighbours[node]
                else place[node]
                for node in column
            }
            column.sort(key=mean.__getitem__)
            _number(column, place)


def _number(column: list[_Node], place: dict[_Node, float]) -> None:
    # Centred, so that the middle of a short column is that of a long one.
    for index, node in enumerate(column):
        place[node] = index - (len(column) - 1) / 2


def _grid(
    columns: list[list[_Node]], levels: Mapping[str, int], chains: Mapping[tuple[str, str], list[_Node]]
) -> Layout:
    rows = max(len(column) for column in columns)
    at: dict[_Node, tuple[int, float]] = {}
    for level, column in enumerate(columns):
        for index, node in enumerate(column):
            at[node] = (level, index + (rows - len(column)) / 2)
    return Layout(
        positions={name: at[name] for name in levels},
        passages={edge: [at[node] for node in chain] for edge, chain in chains.items()},
        levels=len(columns),
        rows=rows,
    )
