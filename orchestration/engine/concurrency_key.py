"""The concurrency key of a flow session: what it is grouped by with others, under a limit of their own.

Evaluated once, when the run is accepted; a key that can't be had refuses the run before anything is recorded.
"""

from __future__ import annotations

from orchestration.definition.expressions import Scope, Template
from orchestration.definition.scope import kind_of
from orchestration.errors import ExpressionError, PayloadError

#: Bytes of a key in UTF-8: it is part of names in Redis.
MAX_KEY_BYTES = 256


def concurrency_key(template: Template | None, scope: Scope) -> str:
    """The key of a session; empty where its definition has none.

    Raises: PayloadError: it can't be evaluated, is null or empty, no string and no whole number, or too long.
    """
    if template is None:
        return ""
    try:
        value = template.render(scope)
    except ExpressionError as error:
        raise PayloadError(f"limits.concurrency_key can't be evaluated, so the run was not accepted: {error}") from None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise PayloadError(
            f"limits.concurrency_key must give a string or a whole number, but gives {kind_of(value)}; "
            "the run was not accepted"
        )
    return check_key(str(value))


def check_key(key: str) -> str:
    """The key itself.

    Raises: PayloadError: it is empty, too long, or has characters that can't be shown.
    """
    if not key:
        raise PayloadError("a concurrency key can't be empty")
    if not key.isprintable():
        raise PayloadError(f"a concurrency key can't hold characters that are not printable; this is {key[:100]!r}")
    size = len(key.encode())
    if size > MAX_KEY_BYTES:
        raise PayloadError(f"a concurrency key has at most {MAX_KEY_BYTES} bytes; {key[:40]!r}… has {size}")
    return key
