"""How a process of the pool ended, in words: what a person reads of an action that took its process down."""

from __future__ import annotations

import re
from typing import Final

from billiard.exceptions import TimeLimitExceeded, WorkerLostError

#: Of billiard's message: "Worker exited prematurely: signal 11 (SIGSEGV) Job: 7."
_ENDED: Final = re.compile(r"(exitcode|signal) (\d+)(?: \((\w+)\))?")
_KILL: Final = "9"


def describe_death(error: BaseException) -> str:
    """What stands behind "it died", from what Celery says of a message whose process is gone or whose task failed."""
    if isinstance(error, TimeLimitExceeded):
        return f"by Celery's hard time limit ({error.args[0]:g} s)" if error.args else "by Celery's hard time limit"
    found = _ENDED.search(str(error)) if isinstance(error, WorkerLostError) else None
    if found is None:
        return f"by {type(error).__name__}"
    kind, number, name = found.groups()
    if kind == "exitcode":
        return f"with exit code {number}"
    hint = ", as the kernel ends what takes too much memory" if number == _KILL else ""
    return f"by signal {number}{f' ({name})' if name else ''}{hint}"
