"""Actions that the definitions in these tests use; only their signatures matter."""

from __future__ import annotations

from typing import Any

from orchestration.registry import ActionContext, action


@action("sample.noop")
def noop() -> None: ...


@action("sample.echo")
def echo(value: Any = None) -> Any:
    return value


@action("sample.anything")
def anything(**inputs: Any) -> Any:
    return inputs


@action("sample.ship")
def ship(ctx: ActionContext, sku: str, count: int = 1, tags: list[str] | None = None) -> None: ...
