"""The entry point: checks that the packages are ours, builds the Typer application, keeps tracebacks from people.

Nothing of ours is imported at the top: a package of somebody else's with one of our names must be reported, not met.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

DISTRIBUTION = "celery-parallelizer"
#: `tasks` is checked where it is imported, once the settings are known.
PACKAGES = ("config", "orchestration", "parallelizer")


def run() -> None:
    """Run the command line and exit with its code: 0 success, 1 the workflow failed, 2 wrong use, 3 no service."""
    for name in PACKAGES:
        if complaint := stranger(name):
            print(complaint, file=sys.stderr)
            sys.exit(2)
    from parallelizer.cli.failures import failures_in_words  # noqa: PLC0415 - see the module docstring

    with failures_in_words():
        build_app()()


def build_app() -> typer.Typer:
    """The Typer application with all its commands."""
    from parallelizer.cli import (  # noqa: PLC0415 - see the module docstring
        control,
        dead_letters,
        events,
        explain,
        limits,
        logs,
        runs,
        stack,
        timeline,
        top,
        workflows,
    )  # fmt: skip

    app = typer.Typer(
        name="parallelizer", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
        rich_markup_mode=None, help="Run workflows, directed graphs of actions, on Celery workers.",
        epilog="Exit codes: 0 success, 1 the workflow failed, 2 wrong use or definition, 3 a service is out of reach.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip
    app.callback()(_common)
    runs.register(app)
    control.register(app)
    logs.register(app)
    events.register(app)
    workflows.register(app)
    stack.register(app)
    limits.register(app)
    explain.register(app)
    timeline.register(app)
    top.register(app)
    dead_letters.register(app)
    return app


def stranger(name: str) -> str | None:
    """What to tell the user when the package of this name is not ours, else None."""
    try:
        package = import_module(name)
    except ImportError as error:
        return f"parallelizer: can't import its package {name!r}: {error}"
    if getattr(package, "__distribution__", None) == DISTRIBUTION:
        return None
    place = getattr(package, "__file__", None) or ", ".join(getattr(package, "__path__", ["?"]))
    return (
        f"parallelizer: the package {name!r} that Python finds is not its own but {place}; "
        "run from another folder, take that folder off PYTHONPATH, or uninstall the distribution it came with"
    )


def _version(asked: bool) -> None:
    if asked:
        from parallelizer import __version__  # noqa: PLC0415 - see the module docstring

        print(f"parallelizer {__version__}")
        raise typer.Exit


def _debug(asked: bool) -> None:
    if asked:
        from parallelizer.cli import failures  # noqa: PLC0415 - see the module docstring

        failures.show_tracebacks()


def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.", callback=_debug, is_eager=True)
    ] = False,
) -> None:
    """Options of every command; their callbacks have acted already."""


if __name__ == "__main__":
    run()
