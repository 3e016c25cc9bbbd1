"""What the demos of the examples share: they run a workflow, then show its figures beside those computed without it.

A demo has a stack of its own, whose workers know the actions of its example; it lives in `DATA_DIR/<example>`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from config.settings import WrongSetting, load_settings

Figures = dict[str, Any]
console = Console(highlight=False, soft_wrap=True)

WRONG_USE, INTERRUPTED = 2, 130


def end_with(demo: Callable[[], int]) -> NoReturn:
    """Run a demo and end the process with its exit code; what is wrong with its surroundings is said in one line."""
    try:
        code = demo()
    except (OSError, WrongSetting) as error:
        console.print(f"Can't run this demo: {error}", markup=False, style="red")
        code = WRONG_USE
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def data_dir_of(example: str) -> Path:
    """Where the stack of a demo and its reports live."""
    return load_settings().data_dir.resolve() / example


def reports_of(data_dir: Path, folder: str) -> Path:
    """Where a demo keeps what it finds out about `folder`."""
    return data_dir / "reports" / hashlib.sha256(folder.encode()).hexdigest()[:12]


def chosen_folder() -> Path | None:
    """The folder named by `FOLDER`, or None.

    Raises: OSError: it isn't there, or is a file.
    """
    own = os.environ.get("FOLDER")
    if not own:
        return None
    folder = Path(own).expanduser().resolve(strict=True)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file")
    return folder


def own_data_inside(folder: Path, data_dir: Path) -> list[str]:
    """What to exclude of `folder`: our own database would change while we look at it."""
    return [f"/{data_dir.parent.relative_to(folder).as_posix()}"] if data_dir.is_relative_to(folder) else []


def run_workflow(
    example: Path, action_module: str, payload: Mapping[str, Any], data_dir: Path
) -> tuple[int, Figures | None]:
    """Run `parallelizer run` with the actions of an example; its live view goes to the terminal.

    Args: example: the folder with `workflow.yaml` and the module.
    Returns: the exit code, and the run as JSON, None where there was none.
    """
    python_path = os.pathsep.join(part for part in (str(example), os.environ.get("PYTHONPATH")) if part)
    command = [
        sys.executable, "-m", "parallelizer.cli.main", "run", str(example / "workflow.yaml"),
        "--payload", json.dumps(payload), "--data-dir", str(data_dir), "--follow", "--json",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": python_path, "ACTION_MODULES": action_module}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        while True:
            try:
                output, _ = process.communicate()
                break
            except KeyboardInterrupt:
                continue  # Ctrl-C went to the command too, which ends the run in its own way
    return process.returncode, json.loads(output) if output.strip() else None


def print_comparison(columns: Mapping[str, Figures]) -> int:
    """Print every figure from every source side by side; return how many differ."""
    table = Table(
        title="The workflow's figures, and the same ones computed without it", title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column("figure", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    differing = 0
    for figure in columns["workflow"]:
        values = [column[figure] for column in columns.values()]
        agree = len(set(values)) == 1
        differing += not agree
        shown = [f"{value:,}" if isinstance(value, int) else f"{value[:6]}…{value[-6:]}" for value in values]
        table.add_row(figure, *shown, "[green]equal[/]" if agree else "[red]differs[/]")
    console.print(table)
    return differing


def print_some(title: str, found: Sequence[str], most: int = 5) -> None:
    """Print the first of what was found, and how many more there are; nothing when nothing was found."""
    if found:
        more = f" … and {len(found) - most:,} more" if len(found) > most else ""
        console.print(f"{title}: {', '.join(found[:most])}{more}", markup=False)
