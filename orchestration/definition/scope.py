"""What an expression sees: the payload, the tasks before it, the item, the session; and plain paths into them.

Paths are resolved in Python, without copying and without limits of size, because results may be large.
Pure; called by `expressions.py` and `cel.py`, filled by the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from orchestration.errors import ExpressionError

#: The names that expressions may use.
ROOTS: Final = ("payload", "tasks", "item", "item_index", "session")
#: Those that exist only in an action with `for_each`.
ITEM_ROOTS: Final = frozenset({"item", "item_index"})
#: Names offered in a message about something absent.
MAX_NAMES_OFFERED = 5


class _Absent:
    def __repr__(self) -> str:
        return "absent"


#: Value of `item` outside a `for_each`.
ABSENT: Final = _Absent()


@dataclass(slots=True)
class Scope:
    """The values behind the names in expressions. One may be kept for all items: set `item` and `item_index` anew."""

    payload: object
    #: By action name: a mapping with `result`, `status`, `error`, `counts`. Only an expression's references are read.
    tasks: Mapping[str, object] = field(default_factory=dict)
    item: object = ABSENT
    item_index: object = ABSENT
    session: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Path:
    """A root and the keys from there: `payload.a["b"][0]` is `Path("payload", ("a", "b", 0))`."""

    root: str
    keys: tuple[str | int, ...] = ()

    def resolve(self, scope: Scope) -> object:
        """Return the value there, itself and not a copy.

        Raises: ExpressionError: something on the way is absent; the message says what, and what there is.
        """
        value: object = getattr(scope, self.root)
        # Exact types first: this runs for each item of a for_each.
        for position, key in enumerate(self.keys):
            try:
                if type(key) is str:
                    if type(value) is dict or isinstance(value, Mapping):
                        value = value[key]
                        continue
                elif type(key) is int and isinstance(value, (list, tuple)):
                    value = value[key]
                    continue
            except LookupError:
                pass
            raise self._absent(value, position)
        if value is ABSENT:
            raise self._absent_item()
        return value

    def __str__(self) -> str:
        return self._text(len(self.keys))

    def _text(self, length: int) -> str:
        parts = [self.root]
        for key in self.keys[:length]:
            if isinstance(key, int):
                parts.append(f"[{key}]")
            elif key.isidentifier() and key.isascii():
                parts.append(f".{key}")
            else:
                parts.append(f"[{quoted(key)}]")
        return "".join(parts)

    def _absent_item(self) -> ExpressionError:
        return ExpressionError(f"{self}: {self.root} exists only in an action with for_each")

    def _absent(self, value: object, position: int) -> ExpressionError:
        if value is ABSENT:
            return self._absent_item()
        key, before = self.keys[position], self._text(position)
        if isinstance(key, int):
            if isinstance(value, (list, tuple)):
                reason = f"{before} has {len(value)} elements, so there is no element {key} (the first is 0)"
            else:
                reason = f"{before} is {kind_of(value)}, so it has no element {key}"
        elif isinstance(value, Mapping):
            reason = f"{before} has no field {quoted(key)}; {_offer(value)}"
        else:
            reason = f"{before} is {kind_of(value)}, so it has no field {quoted(key)}"
        return ExpressionError(f"{self}: {reason}")


def quoted(text: str) -> str:
    """`text` as a string literal of the expression language."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def kind_of(value: object) -> str:
    """What a JSON value is called in messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            return "a mapping"
        case list() | tuple() | range():
            return "a list"
    return f"a {type(value).__name__}"


def _offer(value: Mapping[object, object]) -> str:
    names: list[str] = []
    for name in value:
        if len(names) == MAX_NAMES_OFFERED:
            names.append("…")
            break
        names.append(str(name)[:60])
    return f"it has {', '.join(names)}" if names else "it is empty"
