"""Expressions end soon, within bounded memory, and never take the process with them; none escapes into Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.definition.expressions import Expression, Scope, Template
from orchestration.errors import ExpressionError
from tests.unit.definition.hostile import EXPRESSIONS

ROOT = Path(__file__).parents[3]

ESCAPES = [
    "''.__class__.__mro__[1].__subclasses__()",
    "().__class__.__bases__[0]",
    "__import__('os').system('id')",
    "payload.__class__.__init__.__globals__",
    "tasks.a.__class__",
    "session.__dict__",
    "item.__reduce__()",
    "constructor.constructor('return process')()",
    "this.process.mainModule.require('child_process')",
    "(function(){return this})()",
    "payload['__proto__']['x']",
    "eval('1')",
    "exec('1')",
    "lambda x: x",
    "open('/etc/passwd').read()",
    "globals()",
    "{{7*7}}",
    "#{7*7}",
    "${7*7}",
    "`id`",
    "payload.format('{0.__class__}')",
    "'%s'.format([payload.__class__])",
    "google.protobuf.Any{}",
    "type(payload).x",
]


def test_hostile_expressions_end_within_a_second_and_256_mb_in_a_living_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.definition.hostile"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    lines = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert len(lines) == len(EXPRESSIONS)
    too_costly = [line for line in lines if float(line[0]) > 1 or int(line[1]) > 256]
    assert not too_costly


@pytest.mark.parametrize("text", ESCAPES)
def test_no_expression_escapes(text: str) -> None:
    one = Scope({"a": 1}, {"a": {"result": 1}}, item={"x": 1}, session={"id": "s"})
    with pytest.raises(ExpressionError):
        Expression.of(text).evaluate(one)
    with pytest.raises(ExpressionError):
        Template(f"${{{{ {text} }}}}").render(one)
