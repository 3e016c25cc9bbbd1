"""Writes docs/reference from the program itself: `python -m tests.docs.reference`; test_reference.py says when to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import typer
from annotated_types import Ge, Gt, Le

from config.settings import Settings
from orchestration.registry import find_action, load_actions, registered_actions
from parallelizer.cli.main import build_app

DOCS = Path(__file__).resolve().parents[2] / "docs"
WRITTEN_BY = "<!-- Written by `python -m tests.docs.reference`; change the source, not this file. -->"

SOURCES_OF_SETTINGS = """\
From the environment, a file `.env`, and the table `[processor]` of `parallelizer.toml` (another path in
`PARALLELIZER_CONFIG`), where the names are in small letters; the first of these that has a setting wins. A wrong value
stops the start with a message that names it. In TOML, `branch_timeout_seconds` is another name for
`branch_processing_timeout_secs`."""


def command_line() -> str:
    """`--help` of every command."""
    root: Any = typer.main.get_command(build_app())
    parts = ["# Command line", WRITTEN_BY, _help(root, "parallelizer")]
    for name in sorted(root.commands):
        parts += [f"## parallelizer {name}", _help(root.commands[name], f"parallelizer {name}")]
    return "\n\n".join(parts) + "\n"


def settings() -> str:
    """Every setting: name, default, range, meaning."""
    rows = ["| setting | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = _shown_default(field.default)
        rows.append(f"| `{name.upper()}` | {default} | {_allowed(field)} | {field.description} |")
    return "\n\n".join(["# Settings", WRITTEN_BY, SOURCES_OF_SETTINGS, "\n".join(rows)]) + "\n"


def actions() -> str:
    """Every built-in action: inputs and what it does."""
    load_actions(())
    built_in = sorted(
        name
        for name, spec in registered_actions().items()
        if spec.function.__module__.startswith("parallelizer.actions.")
    )
    parts = ["# Built-in actions", WRITTEN_BY]
    for name in built_in:
        function = find_action(name).function
        parts += [f"## {name}", f"```\n{_signature(name, function)}\n```", _prose(inspect.getdoc(function) or "")]
    return "\n\n".join(parts) + "\n"


#: Sections of a docstring → what a reader of the page calls them.
_SECTIONS = {"Args": "Inputs", "Raises": "Fails with", "Returns": "Result"}

#: Page → what writes it.
PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": command_line,
    "reference/settings.md": settings,
    "reference/actions.md": actions,
}


def _help(command: click.Command, name: str) -> str:
    context = command.make_context(name, [], resilient_parsing=True, max_content_width=100, terminal_width=100)
    return f"```\n{command.get_help(context)}\n```"


def _signature(name: str, function: Callable[..., Any]) -> str:
    shown = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            shown.append("any inputs")
        else:
            default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
            shown.append(f"{parameter.name}: {parameter.annotation}{default}")
    return f"{name}({', '.join(shown)})"


def _prose(docstring: str) -> str:
    """A docstring as Markdown: each of its sections becomes a paragraph."""
    text = re.sub(r"\n+(Args|Raises|Returns): ", lambda found: f"\n\n{_SECTIONS[found[1]]}: ", docstring)
    return text.replace("\n    ", " ")


def _shown_default(default: object) -> str:
    if default is None or default in ((), ""):
        return "none"
    if default == 0:
        return "0"
    return (
        f"{default:,}" if isinstance(default, int) else f"{default:g}" if isinstance(default, float) else f"`{default}`"
    )


def _allowed(field: Any) -> str:
    bounds = {type(bound): bound for bound in field.metadata}
    low = f"≥ {bounds[Ge].ge:,}" if Ge in bounds else f"> {bounds[Gt].gt:,}" if Gt in bounds else ""
    high = f"≤ {bounds[Le].le:,}" if Le in bounds else ""
    if low or high:
        return ", ".join(part for part in (low, high) if part)
    return " ".join(_type_names(field.annotation))


def _type_names(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is tuple:
        yield "list"
    elif arguments := get_args(annotation):
        yield from (name for argument in arguments if argument is not type(None) for name in _type_names(argument))
    else:
        yield {"str": "text", "Path": "path", "bool": "true, false"}.get(annotation.__name__, annotation.__name__)


if __name__ == "__main__":
    for page, write in PAGES.items():
        (DOCS / page).write_text(write(), encoding="utf-8")
