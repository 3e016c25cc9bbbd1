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
        path: DocumentPath = ("actions", name)
        has_items = "for_each" in action
        for field, item_known in (("if", has_items), ("for_each", False), ("with", has_items)):
            if field not in action:
                continue
            for found in _find(field, (*path, field), action[field], findings):
                expression = _check(found, item_known, has_items, findings)
                for reference in expression.references if expression else ():
                    if reference in graph.needs and reference not in graph.needs[name]:
                        later.append((name, reference, found))
                    elif reference not in graph.needs:
                        findings.append(_unknown_reference(reference, found, graph))
    for found in _find("output", ("output",), definition.get("output"), findings):
        expression = _check(found, item_known=False, has_items=False, findings=findings)
        for reference in expression.references if expression else ():
            if reference not in graph.needs:
                findings.append(_unknown_reference(reference, found, graph))
    return [*findings, *_find_not_before(later, graph)]


def _find(field: str, path: DocumentPath, value: object, findings: list[Finding]) -> Iterator[_Found]:
    """Yield the expressions of a field; adds what can't even be split to `findings`."""
    wanted = ""
    if field == "if":
        wanted = "BOOL"
    elif field == "for_each" and isinstance(value, str):
        wanted = "LIST"
    elif field == "for_each" and isinstance(value, Mapping) and isinstance(value.get("range"), str):
        wanted, path, value = "INT", (*path, "range"), value["range"]
    try:
        if wanted:
            if isinstance(value, str):
                text, offset = bare(value)
                if OPENING in text:
                    message = "must be one expression and nothing else, such as ${{ payload.items }}"
                    findings.append(Finding(path, message))
                else:
                    yield _Found(path, offset, text, wanted)
        elif isinstance(value, str):
            if OPENING in value:
                for part in split_text(value):
                    if not isinstance(part, str):
                        yield _Found(path, part[1], part[0])
        elif isinstance(value, Mapping):
            for key, element in value.items():
                if isinstance(key, str) and OPENING in key:
                    findings.append(Finding((*path, key), "expressions in keys are not evaluated", at_key=True))
                yield from _find("", (*path, key), element, findings)
        elif isinstance(value, (list, tuple)):
            for position, element in enumerate(value):
                yield from _find("", (*path, position), element, findings)
    except WrongExpression as error:
        findings.append(Finding(path, str(error), offset=error.offset))


def _check(found: _Found, item_known: bool, has_items: bool, findings: list[Finding]) -> Expression | None:
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


def _unknown_reference(reference: str, found: _Found, graph: Graph) -> Finding:
    return Finding(
        found.path, f"the expression names an action that does not exist: {reference!r}",
        nearest(reference, graph.needs), offset=found.offset,
    )  # fmt: skip


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
