"""Checks of what an action calls: `uses` against the registry, `with` against the function's signature. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from orchestration.definition.expressions import OPENING
from orchestration.definition.places import DocumentPath, Finding
from orchestration.registry import ActionParameter, ActionSpec, registered_actions

CELERY_PREFIX = "celery:"


def find_action_mistakes(actions: Mapping[str, Mapping[str, object]]) -> Iterator[Finding]:
    """Find unknown actions, missing and unknown inputs, literal inputs of a wrong type, options without effect."""
    adapters: dict[tuple[str, str], TypeAdapter[Any] | None] = {}
    unknown: dict[str, Finding] = {}
    for name, action in actions.items():
        path: DocumentPath = ("actions", name)
        if "max_concurrent" in action and "for_each" not in action:
            yield Finding((*path, "max_concurrent"), "max_concurrent is for actions with for_each", at_key=True)
        uses = action.get("uses")
        if not isinstance(uses, str) or not uses:
            continue
        spec = registered_actions().get(uses)
        if spec is None:
            if uses not in unknown:
                unknown[uses] = _unknown(uses)
            yield Finding((*path, "uses"), unknown[uses].message, unknown[uses].hint)
            continue
        inputs = action.get("with", {})
        if isinstance(inputs, Mapping):
            yield from _find_wrong_inputs(path, spec, inputs, adapters)


def _unknown(uses: str) -> Finding:
    if uses.startswith(CELERY_PREFIX):
        return Finding((), f"Celery tasks as actions ({uses}) are not supported yet")
    near = difflib.get_close_matches(uses, registered_actions(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "name its module in ACTION_MODULES"
    return Finding((), f"unknown action {uses!r}", hint)


def _find_wrong_inputs(
    path: DocumentPath,
    spec: ActionSpec,
    inputs: Mapping[str, object],
    adapters: dict[tuple[str, str], TypeAdapter[Any] | None],
) -> Iterator[Finding]:
    for parameter in spec.parameters.values():
        if parameter.required and parameter.name not in inputs:
            yield Finding((*path, "with") if inputs else path, f"{spec.name} needs the input {parameter.name!r}")
    for name, value in inputs.items():
        known = spec.parameters.get(name)
        if known is not None:
            reason = _wrong_type(spec, known, value, adapters)
            if reason:
                yield Finding((*path, "with", name), reason)
        elif not spec.accepts_any:
            near = difflib.get_close_matches(name, spec.parameters, n=1)
            accepted = ", ".join(spec.parameters) or "none"
            hint = f"did you mean {near[0]}?" if near else f"its inputs: {accepted}"
            yield Finding((*path, "with", name), f"{spec.name} has no input {name!r}", hint, at_key=True)


def _wrong_type(
    spec: ActionSpec,
    parameter: ActionParameter,
    value: object,
    adapters: dict[tuple[str, str], TypeAdapter[Any] | None],
) -> str:
    """Why a literal value does not fit, or nothing; a value with an expression in it is known only at run time."""
    if parameter.annotation is Any or parameter.annotation is object:
        return ""
    key = (spec.name, parameter.name)
    if key not in adapters:
        adapters[key] = _adapter(parameter.annotation)
    adapter = adapters[key]
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return ""
    if adapter is None or OPENING in text:
        return ""
    try:
        # As JSON, so that what JSON can't write (tuples, paths) is given in the way it can.
        adapter.validate_json(text.encode("utf-8", "surrogatepass"), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        inside = "".join(f"[{part!r}]" for part in first["loc"])
        shown = text if len(text) <= 60 else text[:57] + "..."
        reason = str(first["msg"]).replace("Input should be", "must be")
        return f"the input {parameter.name}{inside} of {spec.name} {reason[:1].lower()}{reason[1:]}; it is {shown}"
    return ""


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(annotation)
    except (PydanticUserError, TypeError, NameError):
        return None  # an annotation that pydantic can't check, such as a class of the user's own
