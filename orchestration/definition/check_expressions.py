"""Checks of expressions: can CEL compile them, and does what they name exist when they are evaluated? Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestration.definition.check_graph import Graph, nearest
from orchestration.definition.expressions import OPENING, Expression, WrongExpression, bare, split_text
from orchestration.definition.places import DocumentPath, Finding

#: CEL's names of result types, as messages call them.
_TYPE_NAMES = {"INT": "a number", "UINT": "a number", "DOUBLE": "a number", "STRING": "a string", "NULL": "null",
               "BOOL": "a boolean"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Found:
    """An expression in its place."""

    path: DocumentPath
    #: Of the expression in the string at `path`.
    offset: int
    text: str
    #: What it must give (`BOOL`, `LIST`, `INT`), or nothing.
    wanted: str = ""


def find_expression_mistakes(
    definition: Mapping[str, object], actions: Mapping[str, Mapping[str, object]], graph: Graph
) -> list[Finding]:
    """Find expressions that are wrong, or name actions that don't exist or don't run before."""
    findings: list[Finding] = []
    later: list[tuple[str, str, _Found]] = []
    for name, action in actions.items():
        has_items = "for_each" in action
        for found in _find_in_action(name, action, findings):
            expression = _check(found, has_items, findings)
            known = _known_references(expression, found, graph, findings)
            later += [(name, reference, found) for reference in known if reference not in graph.needs[name]]
    for found in _find_in_template(("output",), definition.get("output"), findings):
        expression = _check(found, has_items=False, findings=findings)
        # Everything has ended by then, so any action may be named.
        findings.extend(() if expression is None else _unknown_references(expression, found, graph))
    _check_key(definition.get("limits"), findings)
    return [*findings, *_find_not_before(later, graph)]


def _check_key(limits: object, findings: list[Finding]) -> None:
    """A concurrency key is evaluated before anything runs, so it can't name actions."""
    if not isinstance(limits, Mapping):
        return
    path: DocumentPath = ("limits", "concurrency_key")
    for name in ("max_concurrent_branches_per_key", "max_concurrent_sessions_per_key", "rate_limit_per_key"):
        if name in limits and "concurrency_key" not in limits:
            message = "a limit per key needs a key: add concurrency_key, such as ${{ payload.customer }}"
            findings.append(Finding(("limits", name), message))
    for found in _find_in_template(path, limits.get("concurrency_key"), findings):
        expression = _check(found, has_items=False, findings=findings)
        if expression is not None and expression.references:
            message = "a concurrency key is evaluated before any action has run; it can use payload and session only"
            findings.append(Finding(path, message, offset=found.offset))


def _find_in_action(name: str, action: Mapping[str, object], findings: list[Finding]) -> Iterator[_Found]:
    path: DocumentPath = ("actions", name)
    yield from _find_alone((*path, "if"), action.get("if"), "BOOL", findings)
    items = action.get("for_each")
    if isinstance(items, Mapping):
        yield from _find_alone((*path, "for_each", "range"), items.get("range"), "INT", findings)
    elif isinstance(items, str):
        yield from _find_alone((*path, "for_each"), items, "LIST", findings)
    else:
        yield from _find_in_template((*path, "for_each"), items, findings)
    yield from _find_in_template((*path, "with"), action.get("with"), findings)


def _find_alone(path: DocumentPath, value: object, wanted: str, findings: list[Finding]) -> Iterator[_Found]:
    """Yield the expression of a field that is one; adds what can't even be split to `findings`."""
    if not isinstance(value, str):
        return
    try:
        text, offset = bare(value)
    except WrongExpression as error:
        findings.append(Finding(path, str(error), offset=error.offset))
        return
    if OPENING in text:
        findings.append(Finding(path, "must be one expression and nothing else, such as ${{ payload.items }}"))
    else:
        yield _Found(path, offset, text, wanted)


def _find_in_template(path: DocumentPath, value: object, findings: list[Finding]) -> Iterator[_Found]:
    """Yield the expressions in the strings of a value."""
    if isinstance(value, str):
        if OPENING in value:
            yield from _find_in_text(path, value, findings)
    elif isinstance(value, Mapping):
        for key, element in value.items():
            if isinstance(key, str) and OPENING in key:
                findings.append(Finding((*path, key), "expressions in keys are not evaluated", at_key=True))
            yield from _find_in_template((*path, key), element, findings)
    elif isinstance(value, (list, tuple)):
        for position, element in enumerate(value):
            yield from _find_in_template((*path, position), element, findings)


def _find_in_text(path: DocumentPath, text: str, findings: list[Finding]) -> Iterator[_Found]:
    try:
        for part in split_text(text):
            if not isinstance(part, str):
                yield _Found(path, part[1], part[0])
    except WrongExpression as error:
        findings.append(Finding(path, str(error), offset=error.offset))


def _check(found: _Found, has_items: bool, findings: list[Finding]) -> Expression | None:
    """Compile an expression; adds what is wrong with it to `findings`."""
    item_known = has_items and found.path[2:3] != ("for_each",)
    try:
        expression = Expression.of(found.text)
        gives = expression.check()
    except WrongExpression as error:
        findings.append(Finding(found.path, f"wrong expression: {error}", offset=found.offset + error.offset))
        return None
    if found.wanted and not _fits(gives, found.wanted):
        wanted = {"BOOL": "true or false", "LIST": "a list", "INT": "a whole number"}[found.wanted]
        message = f"the expression must give {wanted}, but gives {_TYPE_NAMES.get(gives, gives.lower())}"
        findings.append(Finding(found.path, message, offset=found.offset))
    if expression.uses_item and not item_known:
        message = "item is known only in `with` and `if` of an action with for_each"
        hint = "" if has_items else "add for_each"
        findings.append(Finding(found.path, message, hint, offset=found.offset))
    return expression


def _fits(gives: str, wanted: str) -> bool:
    return gives.startswith(wanted) or gives in ("DYN", "ANY") or (wanted == "INT" and gives == "UINT")


def _known_references(expression: Expression | None, found: _Found, graph: Graph, findings: list[Finding]) -> list[str]:
    if expression is None:
        return []
    findings.extend(_unknown_references(expression, found, graph))
    return [reference for reference in sorted(expression.references) if reference in graph.needs]


def _unknown_references(expression: Expression, found: _Found, graph: Graph) -> Iterator[Finding]:
    for reference in sorted(expression.references):
        if reference not in graph.needs:
            message = f"the expression names an action that does not exist: {reference!r}"
            yield Finding(found.path, message, nearest(reference, graph.needs), offset=found.offset)


def _find_not_before(later: list[tuple[str, str, _Found]], graph: Graph) -> Iterator[Finding]:
    """Of references that are not direct needs, find those that are no ancestors either."""
    if not later:
        return
    names = list(dict.fromkeys(reference for _, reference, _ in later))
    bits = {name: 1 << position for position, name in enumerate(names)}
    before = graph.ancestors_among(names)
    for name, reference, found in later:
        if name in before and not before[name] & bits[reference]:
            message = f"the expression reads tasks.{reference}, which does not run before {name}"
            if reference == name:
                message = f"the expression reads {name}'s own result, which does not exist yet"
            hint = "" if reference == name else f"add {reference} to needs"
            yield Finding(found.path, message, hint, offset=found.offset)
