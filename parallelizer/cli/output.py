"""Where results and messages go: results to standard output, for pipes; what is said along the way where it is seen."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.syntax import Syntax

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: Any) -> None:
    """Print a value as JSON: indented for people on a terminal, one line in a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(value, indent=indent, ensure_ascii=False))


def console_for(*, result_is_json: bool) -> Console:
    """The console for what is said along the way: standard error when standard output is for JSON only."""
    return Console(stderr=result_is_json, highlight=False, soft_wrap=False)


def print_value(console: Console, title: str, value: Any, most_lines: int = 40) -> None:
    """Print a run's output, not endlessly."""
    lines = json.dumps(value, indent=2, ensure_ascii=False).splitlines()
    console.print(title, style="bold")
    shown = "\n".join(line if len(line) <= 500 else f"{line[:499]}…" for line in lines[:most_lines])
    if console.is_terminal:
        console.print(Syntax(shown, "json", background_color="default", word_wrap=True))
    else:
        console.print(shown, markup=False, soft_wrap=True)
    if len(lines) > most_lines:
        console.print(f"… {len(lines) - most_lines:,} more lines; --json prints them all", style="dim")
