"""Definitions in Python: the same words as in YAML, with `with_` and `if_` where Python keeps the word for itself.

workflow = Workflow("order-fulfilment", payload_schema={"type": "object", "required": ["order_id"]})
workflow.action("fetch", "http.request", with_={"url": "https://api.example/orders/${{ payload.order_id }}"})
workflow.action("ship", "shop.ship", needs="fetch", for_each="${{ tasks.fetch.result.items }}")
definition = workflow.build()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from orchestration.definition.check import MAX_ACTIONS
from orchestration.definition.loader import load_definition
from orchestration.definition.schema import Definition
from orchestration.errors import DefinitionError, Problem


class Workflow:
    """Collects the parts of a definition; nothing is checked before `build`."""

    def __init__(
        self,
        name: str,
        *,
        description: str | None = None,
        payload_schema: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        queue: str | None = None,
        output: Any = None,
        dispatch: str | None = None,
    ) -> None:
        self._actions: dict[str, dict[str, Any]] = {}
        self._parts = _given(
            name=name,
            description=description,
            payload_schema=payload_schema,
            limits=limits,
            queue=queue,
            output=output,
            dispatch=dispatch,
        )

    def action(  # noqa: PLR0913 - one keyword for each key of an action
        self,
        name: str,
        uses: str,
        *,
        with_: Mapping[str, Any] | None = None,
        needs: str | Iterable[str] | None = None,
        for_each: str | list[Any] | Mapping[str, Any] | None = None,
        if_: str | bool | None = None,
        trigger_rule: str | None = None,
        retry: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
        queue: str | None = None,
        max_concurrent: int | None = None,
        continue_on_failure: bool | None = None,
        durability: str | None = None,
        rate_limit: str | None = None,
    ) -> Self:
        """Add an action; returns the workflow, so that calls can be chained.

        Raises: DefinitionError: there is an action of this name already.
        """
        if name in self._actions:
            raise DefinitionError([Problem(f"there are two actions called {name!r}", f"actions.{name}")])
        self._actions[name] = _given(
            uses=uses,
            needs=needs if needs is None or isinstance(needs, str) else list(needs),
            for_each=for_each,
            trigger_rule=trigger_rule,
            retry=retry,
            timeout_seconds=timeout_seconds,
            queue=queue,
            max_concurrent=max_concurrent,
            continue_on_failure=continue_on_failure,
            durability=durability,
            rate_limit=rate_limit,
            **{"with": with_, "if": if_},
        )
        return self

    def to_dict(self) -> dict[str, Any]:
        """What has been collected, unchecked; `run_workflow` accepts it."""
        return {**self._parts, "actions": dict(self._actions)}

    def build(self, *, max_actions: int = MAX_ACTIONS) -> Definition:
        """Check everything and return the definition. The actions it uses must have been registered.

        Raises: DefinitionError: with all mistakes.
        """
        return load_definition(self.to_dict(), max_actions=max_actions)


def _given(**parts: Any) -> dict[str, Any]:
    return {key: value for key, value in parts.items() if value is not None}
