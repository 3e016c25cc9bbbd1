"""The edge of the command line: every error becomes a sentence for people and an exit code for programs.

The only catch-all of the command line is here. A traceback is shown on request only (`--debug`, PARALLELIZER_DEBUG=1).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from config.settings import WrongSetting
from orchestration.errors import (
    ActionError,
    DefinitionError,
    PayloadError,
    ServiceUnreachable,
    SettingsError,
    UnknownRun,
    UnknownTask,
    UnknownWorkflow,
)

OK = 0
WORKFLOW_FAILED = 1
WRONG_USE = 2
OUT_OF_REACH = 3
#: An error nobody expected: EX_SOFTWARE of sysexits.h, so that it is not taken for a workflow that failed.
INTERNAL_ERROR = 70
#: Ended by Ctrl-C, as shells have it.
INTERRUPTED = 130

DEBUG_VARIABLE = "PARALLELIZER_DEBUG"
ERROR_LOG = "cli-errors.log"
_PASSWORD_IN_URL = re.compile(r"(\w+://[^\s:/@]*:)\S+@")


class WrongUse(Exception):
    """What was asked for can't be done as it was asked; the message says why and what would work."""


def exit_code_of(error: BaseException) -> int:
    """The exit code for an error."""
    if isinstance(error, ServiceUnreachable):
        return OUT_OF_REACH
    if isinstance(error, Exception) and _is_lost_connection(error):
        return OUT_OF_REACH
    wrong = (
        WrongUse,
        WrongSetting,
        SettingsError,
        DefinitionError,
        PayloadError,
        UnknownWorkflow,
        UnknownRun,
        UnknownTask,
        ActionError,
    )
    return WRONG_USE if isinstance(error, wrong) else INTERNAL_ERROR


@contextlib.contextmanager
def failures_in_words() -> Iterator[None]:
    """Run a command; whatever it raises ends the process with a message on standard error and the right code."""
    try:
        yield
    except (SystemExit, GeneratorExit):
        raise
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BaseException as error:  # noqa: BLE001 - the edge of the process
        sys.exit(report(error))


def report(error: BaseException) -> int:
    """Tell the user about an error; return the exit code."""
    code = exit_code_of(error)
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        traceback.print_exception(error)
    elif code == INTERNAL_ERROR:
        reason = without_passwords(f"{type(error).__name__}: {error}".partition("\n")[0])
        log = _log(error)
        where = f"the details are in {log}" if log else f"{DEBUG_VARIABLE}=1 shows the details"
        print(f"parallelizer: something went wrong inside: {reason} ({where})", file=sys.stderr)
    else:
        print(without_passwords(_message(error)), file=sys.stderr)
    return code


def show_tracebacks() -> None:
    """From now on errors come with their traceback."""
    os.environ[DEBUG_VARIABLE] = "1"


def without_passwords(text: str) -> str:
    """The text with the password of every URL in it replaced."""
    return _PASSWORD_IN_URL.sub(r"\1***@", text)


def _is_lost_connection(error: Exception) -> bool:
    """Whether a client library lost its service while a command was at work. No library is imported to tell."""
    names = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    return not names.isdisjoint(_LOST_CONNECTIONS)


_LOST_CONNECTIONS = {
    ("redis", "ConnectionError"),
    ("redis", "TimeoutError"),
    ("kombu", "OperationalError"),
    ("psycopg2", "OperationalError"),
    ("psycopg2", "InterfaceError"),
}


def _message(error: BaseException) -> str:
    if isinstance(error, DefinitionError):
        # One line each, as compilers do, so that editors can jump to them.
        count = len(error.problems)
        return f"{error}\n{count} mistakes; nothing was run" if count > 1 else str(error)
    if isinstance(error, Exception) and _is_lost_connection(error):
        reason = str(error).strip().partition("\n")[0]
        return f"parallelizer: the connection to a service was lost ({reason}); `parallelizer doctor` says which"
    return f"parallelizer: {error}"


def _log(error: BaseException) -> Path | None:
    """Keep the traceback of an unexpected error in the data folder, readable by its owner only."""
    from config.settings import get_settings  # noqa: PLC0415 - the settings may be what is wrong

    try:
        data_dir = get_settings().data_dir.resolve()
        if not data_dir.is_dir():
            return None
        path = data_dir / "log" / ERROR_LOG
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
            file.write(without_passwords("".join(traceback.format_exception(error))) + "\n")
    except (OSError, WrongSetting):
        return None
    return path
