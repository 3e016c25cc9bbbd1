"""Random recordings for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from parallelizer.wfformat.recording import RecordedTask, Recording
from tests.unit.definition import graphs

#: Quarters: sums of them are exact.
SECONDS = st.integers(0, 40).map(lambda quarters: quarters / 4)


@st.composite
def recordings(draw: st.DrawFn, most: int = 14) -> Recording:
    """A recording of up to `most` tasks, in an order that need not be topological."""
    graph = draw(graphs.graphs(most))
    tasks = tuple(RecordedTask(name, draw(SECONDS), tuple(parents)) for name, parents in graph.items())
    return Recording("random", "1.5", tasks, None)
