"""Expressions that try to take all time and memory; a program, so that a test can watch it from outside.

Prints a line for each: seconds, peak memory in MB above the start, what came of it.
"""

from __future__ import annotations

import resource
import time

from orchestration.definition.expressions import Expression, Scope
from orchestration.errors import ExpressionError

EXPRESSIONS = [
    "payload.l.map(x, x + 1)",
    "payload.l.map(x, payload.l.map(y, payload.l))",
    "payload.m.map(x, payload.m)",
    "payload.m.map(x, payload.s + 'a')",
    "payload.m.filter(x, x in payload.big)",
    "payload.m.filter(x, payload.big == payload.big)",
    "payload.m.exists(x, payload.m.exists(y, payload.m.exists(z, x + y + z < 0)))",
    "payload.s.replace('x', payload.s)",
    "payload.s.replace('', payload.s)",
    "payload.s.split('').map(x, x)",
    "payload.lines.join(payload.s)",
    "payload.lines.map(x, x.split('')).map(y, y.join(payload.s))",
    "payload.lines.map(x, x.replace('y', x))",
    "payload.s.indexOf(payload.s + 'y')",
    "payload.m.map(n, payload.s.contains(string(n)))",
    "[payload.s, payload.s].map(x, x + x + x).map(x, x + x + x).map(x, [x, x, x].join(x)).size()",
    "[1,2,3,4,5,6,7,8,9].map(a, [1,2,3,4,5,6,7,8,9].map(b, [1,2,3,4,5,6,7,8,9].map(c, payload.big)))",
    "{'a': payload.big, 'b': payload.big, 'c': [payload.big, payload.big, payload.big, payload.big]}",
    "(" * 500 + "1" + ")" * 500,
    "[" * 900 + "]" * 900,
    "+".join(["payload.s"] * 200),
    "+".join(["(" + "+".join(["payload.s"] * 10) + ")"] * 17),
    "payload.deep == 1",
    "payload.cyclic == 1",
    "payload.s.matches('(x+x+)+y')",
    "payload.s.matches(payload.s)",
    "payload.s.matches('((((a{1000}){1000}){1000}){1000})')",
    "'%s%s'.format([payload.s, payload.s])",
]


def main() -> None:
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    cyclic: list[object] = []
    cyclic.append(cyclic)
    payload = {
        "l": list(range(9_999)), "m": list(range(1_900)), "big": list(range(60_000)), "s": "x" * 900_000,
        "lines": ["y" * 900] * 1_000, "deep": deep, "cyclic": cyclic,
    }  # fmt: skip
    Expression.of("1 + 1").evaluate(Scope(payload))
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for text in EXPRESSIONS:
        started = time.process_time()
        try:
            Expression.of(text).evaluate(Scope(payload))
            outcome = "done"
        except ExpressionError:
            outcome = "refused"
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
        print(f"{time.process_time() - started:.3f} {peak_kb // 1024} {outcome} {text[:60]}")  # noqa: T201


if __name__ == "__main__":
    main()
