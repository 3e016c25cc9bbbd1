"""The program of a client process (tests/support/clients.py): runs the pieces of Python that come on standard input.

A line is a JSON object: `code`, and `names` that the code may use. The answer is a line too: the `value` that the code
gave to `result`, or the `error` it raised, as (module, type, message). Names that the code sets live on.

With the argument `bare` the packages of the project can't be imported: what runs then needs Celery alone.
"""

from __future__ import annotations

import json
import os
import sys

PACKAGES = ("config", "orchestration", "parallelizer", "tasks")


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    if sys.argv[1:] == ["bare"]:
        for name in PACKAGES:
            sys.modules[name] = None  # type: ignore[assignment]
    names: dict[str, object] = {}
    for line in sys.stdin:
        order = json.loads(line)
        names.update(order["names"])
        names["result"] = None
        try:
            exec(order["code"], names)
            answer = {"value": names["result"]}
        except Exception as error:  # noqa: BLE001 - the test is told
            answer = {"error": [type(error).__module__, type(error).__qualname__, str(error)]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)  # results that are still there would unsubscribe while the interpreter goes


if __name__ == "__main__":
    main()
