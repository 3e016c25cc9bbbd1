"""Where the actions of a graph stand in a layered drawing: levels from left to right, few crossings. Pure.

A long edge takes a place in each level that it passes (a passage), so that it runs between the actions. The order
within the levels is improved by the mean place of the neighbours, forth and back, and the order with the fewest
crossings is kept. Each action then moves towards the middle of its neighbours, as far as the order lets it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

#: Times that the order within the levels is improved; more changes little.
SWEEPS = 8
#: Times that the actions move towards their neighbours.
MOVES = 4
#: Above so many places the order is improved by fewer sweeps, so that a large graph takes seconds and not minutes.
MAX_UNTANGLED = 3_000
FEW_SWEEPS = 4
#: Edges get no passages beyond this many.
MAX_PASSAGES = 20_000

#: For each node, in the order of the definition, those that come after it.
Successors = Mapping[str, Sequence[str]]
# In the layout, a node is an action's name, or (from, to, level) for a passage of an edge.
_Node = str | tuple[str, str, int]
_Links = Mapping[_Node, Sequence[_Node]]


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions in a grid."""

    #: (level, row) of each action, both from 0; rows may be fractions.
    positions: Mapping[str, tuple[int, float]]
    #: For each edge that passes other levels, the points it passes through.
    passages: Mapping[tuple[str, str], Sequence[tuple[int, float]]]
    levels: int
    rows: int


def levels_of(successors: Successors) -> dict[str, int]:
    """For each node, the most nodes in a row before it; in an order in which each comes after what it needs."""
    missing = dict.fromkeys(successors, 0)
    for after in successors.values():
        for successor in after:
            missing[successor] += 1
    levels = dict.fromkeys((name for name, count in missing.items() if count == 0), 0)
    ready = deque(levels)
    order: dict[str, int] = {}
    while ready:
        name = ready.popleft()
        order[name] = levels[name]
        for successor in successors[name]:
            levels[successor] = max(levels.get(successor, 0), levels[name] + 1)
            missing[successor] -= 1
            if missing[successor] == 0:
                ready.append(successor)
    return order


def lay_out(successors: Successors) -> Layout:
    """Place the nodes of a graph without cycles; 1,000 take some 50 ms."""
    levels = levels_of(successors)
    columns: list[list[_Node]] = [[] for _ in range(max(levels.values()) + 1)]
    for name, level in levels.items():
        columns[level].append(name)
    before: dict[_Node, list[_Node]] = {name: [] for name in levels}
    after: dict[_Node, list[_Node]] = {name: [] for name in levels}
    chains: dict[tuple[str, str], list[_Node]] = {}
    edges = [(name, successor) for name in levels for successor in successors[name]]
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
    columns = _untangled(columns, before, after)
    return _grid(columns, before, after, levels, chains)


def _untangled(columns: list[list[_Node]], before: _Links, after: _Links) -> list[list[_Node]]:
    """Sort each column by the mean place of its neighbours, from left to right and back; the best order wins."""
    place: dict[_Node, float] = {}
    for column in columns:
        _number(column, place)
    places = sum(map(len, columns))
    best, fewest = [list(column) for column in columns], _crossings(columns, after, place)
    for sweep in range(SWEEPS if places <= MAX_UNTANGLED else FEW_SWEEPS):
        if fewest == 0:
            break
        neighbours, walk = (before, columns) if sweep % 2 == 0 else (after, columns[::-1])
        for column in walk:
            mean = {
                node: sum([place[n] for n in neighbours[node]]) / len(neighbours[node])
                if neighbours[node]
                else place[node]
                for node in column
            }
            column.sort(key=mean.__getitem__)
            _number(column, place)
        crossings = _crossings(columns, after, place)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    return best


def _number(column: list[_Node], place: dict[_Node, float]) -> None:
    # Centred, so that the middle of a short column is that of a long one.
    for index, node in enumerate(column):
        place[node] = index - (len(column) - 1) / 2


def _crossings(columns: list[list[_Node]], after: _Links, place: Mapping[_Node, float]) -> int:
    """Pairs of edges that cross between neighbouring levels, as inversions (Barth, Mutzel and Jünger)."""
    total = 0
    for column, following in pairwise(columns):
        middle = (len(following) - 1) / 2
        ends = [round(place[end] + middle) for node in column for end in sorted(after[node], key=place.__getitem__)]
        total += _inversions(ends, len(following))
    return total


def _inversions(numbers: Sequence[int], size: int) -> int:
    sums, seen, total = [0] * (size + 1), 0, 0
    for number in numbers:
        not_above, at = 0, number + 1
        while at > 0:
            not_above += sums[at]
            at -= at & -at
        total += seen - not_above
        seen, at = seen + 1, number + 1
        while at <= size:
            sums[at] += 1
            at += at & -at
    return total


def _grid(
    columns: list[list[_Node]],
    before: _Links,
    after: _Links,
    levels: Mapping[str, int],
    chains: Mapping[tuple[str, str], list[_Node]],
) -> Layout:
    rows = max(len(column) for column in columns)
    row: dict[_Node, float] = {}
    for column in columns:
        for index, node in enumerate(column):
            row[node] = index + (rows - len(column)) / 2
    for move in range(MOVES):
        neighbours, walk = (before, columns) if move % 2 == 0 else (after, columns[::-1])
        for column in walk:
            if len(column) < rows:
                _move(column, neighbours, row, rows)
    level_of = dict(levels) | {node: node[2] for chain in chains.values() for node in chain if isinstance(node, tuple)}
    at = {node: (level_of[node], row[node]) for node in level_of}
    return Layout(
        positions={name: at[name] for name in levels},
        passages={edge: [at[node] for node in chain] for edge, chain in chains.items()},
        levels=len(columns),
        rows=rows,
    )


def _move(column: list[_Node], neighbours: _Links, row: dict[_Node, float], rows: int) -> None:
    """Put each node of a column at the mean row of its neighbours, at least one row apart and within the drawing."""
    spare = rows - len(column)
    wanted = []
    for index, node in enumerate(column):
        beside = neighbours[node]
        mean = sum([row[other] for other in beside]) / len(beside) if beside else row[node]
        wanted.append(min(max(mean, index), spare + index))
    # Pushed down by those above, and up by those below: halfway between the two there is room for all as well.
    down, up = list(wanted), list(wanted)
    for index in range(1, len(column)):
        down[index] = max(down[index], down[index - 1] + 1)
    for index in range(len(column) - 2, -1, -1):
        up[index] = min(up[index], up[index + 1] - 1)
    for node, low, high in zip(column, down, up, strict=True):
        row[node] = (low + high) / 2
