"""Where each version of WfFormat keeps what we read.

Up to 1.4 a task is known by its `name`, and `parents` hold names, although the schema calls them ids and tasks may have
an `id` as well. From 1.5 on they hold ids, names may repeat, and the run times stand apart, in `execution`.

Source: the schemas tagged v1.0 to v1.5 of wfcommons/WfFormat, and instances of wfcommons/pegasus-instances (1.4) and
wfcommons/WfInstances (1.5). 1.6 is what the generator of WfCommons 1.6 writes; it is laid out as 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from orchestration.definition.places import DocumentPath


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to lay out a recording; paths are keys from the top of the document."""

    version: str
    #: The list of tasks.
    tasks: DocumentPath
    #: The field of a task that `parents` and `children` refer to.
    identity: str
    #: The field that holds its run time, in seconds.
    seconds: str
    #: The list that has the run times; the same as `tasks` where they stand with the tasks.
    runs: DocumentPath
    makespan: DocumentPath
    #: Whether the schema asks every task for `parents`; otherwise a task without has none.
    parents_required: bool = False


_1_0 = Dialect(
    version="1.0", tasks=("workflow", "jobs"), identity="name", seconds="runtime", runs=("workflow", "jobs"),
    makespan=("workflow", "makespan"),
)  # fmt: skip
_1_3 = replace(_1_0, version="1.3", tasks=("workflow", "tasks"), runs=("workflow", "tasks"))
_1_4 = replace(_1_3, version="1.4", seconds="runtimeInSeconds", makespan=("workflow", "makespanInSeconds"))
_1_5 = Dialect(
    version="1.5", tasks=("workflow", "specification", "tasks"), identity="id", seconds="runtimeInSeconds",
    runs=("workflow", "execution", "tasks"), makespan=("workflow", "execution", "makespanInSeconds"),
    parents_required=True,
)  # fmt: skip

DIALECTS: Final = {
    dialect.version: dialect
    for dialect in (
        _1_0, replace(_1_0, version="1.1"), replace(_1_0, version="1.2"), _1_3, _1_4, _1_5,
        replace(_1_5, version="1.6"),
    )
}  # fmt: skip
