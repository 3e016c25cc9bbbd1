"""Writes docs/reference from the program itself: `python -m tests.docs.reference`; test_reference.py says when to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import typer
from annotated_types import Ge, Gt, Le

from config.log_fields import COMPONENTS, FIELDS
from config.settings import Settings
from orchestration import errors
from orchestration.registry import find_action, load_actions, registered_actions
from orchestration.reports.events import FIELDS as EVENT_FIELDS
from orchestration.state.keys import KEYS, Key
from orchestration.telemetry import tracing_catalogue
from orchestration.telemetry.metrics import METRICS, Metric, Source
from parallelizer.cli.main import build_app

LUA = files("orchestration.state.lua")
DOCS = Path(__file__).resolve().parents[2] / "docs"
WRITTEN_BY = "<!-- Written by `python -m tests.docs.reference`; change the source, not this file. -->"

SOURCES_OF_SETTINGS = """\
From the environment, a file `.env`, and the table `[processor]` of `parallelizer.toml` (another path in
`PARALLELIZER_CONFIG`), where the names are in small letters; the first of these that has a setting wins. A wrong value
stops the start with a message that names it. In TOML, `branch_timeout_seconds` is another name for
`branch_processing_timeout_secs`."""

ABOUT_KEYS = """\
Every key in Redis that the processor uses, beside Celery's own. Each name starts with `pz:{<namespace>}:`; the
braces keep all keys of a namespace in one slot of a cluster. How they work together is told in the
[design](../design.md)."""

ABOUT_SCRIPTS = """\
Every change of the live state is one of these Lua scripts (`orchestration/state/lua`). Redis runs one script at a
time, and whole. What follows is the head of each file: what is true afterwards, its arguments by name (`ARGV`; a
name with `*` takes all that follow), the shared functions it includes, its reply, and what it adds to the status
stream."""

ABOUT_LOGS = """\
What a line of a worker, of its upkeep process or of Celery in them has, in JSON. A console line has the same ids, and
what the call brought along as `extra`, as `name=value`. How to use them is told in
[Observability](../observability.md#logs)."""

ABOUT_COMPONENTS = """\
The logger with the longest name that fits decides; loggers below those named are meant too. A line of any other logger
has no tag, or `[ACTION]` where an action wrote it."""

ABOUT_EVENTS = """\
What `parallelizer events` prints: an object in each line, with all of these fields; those that have no meaning for an
event are null. How to use them is told in [Observability](../observability.md#events)."""

ABOUT_TRACES = """\
What the processor tells of a flow session to OpenTelemetry. [Observability](../observability.md#traces) has how to turn
it on, and how the spans belong together. Times are those of the record in PostgreSQL."""

ABOUT_ERRORS = """\
What the processor raises on purpose (`orchestration.errors`). A class that stands below another one is a subclass
of it. `config.settings.WrongSetting` (a `ValueError`) stops a process whose settings are wrong."""


ABOUT_METRICS = """\
What each worker shows at `/metrics` (setting `METRICS_PORT`). A histogram has series with `_bucket`, `_count` and
`_sum` behind its name, a summary with `_count` and `_sum`. No label ever has the id of a run; beyond
`METRICS_MAX_NAMES`, names are `other`. How to read them is told in [Observability](../observability.md#metrics)."""

TITLES_OF_METRICS = {
    Source.RECORD: "Of the fleet: counted in PostgreSQL with what they count; the same at every worker",
    Source.LIVE: "Of the fleet: read from Redis at each scrape; the same at every worker",
    Source.WORKER: "Of one worker: since it was started",
}


def command_line() -> str:
    """`--help` of every command."""
    root: Any = typer.main.get_command(build_app())
    parts = ["# Command line", WRITTEN_BY, _help(root, "parallelizer")]
    for name in sorted(root.commands):
        command = root.commands[name]
        parts += [f"## parallelizer {name}", _help(command, f"parallelizer {name}")]
        for inner in sorted(getattr(command, "commands", {})):
            path = f"parallelizer {name} {inner}"
            parts += [f"### {path}", _help(command.commands[inner], path)]
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


def keys() -> str:
    """Every key of the live state: name, type, what it holds."""
    rows = ["| key | type | holds |", "| --- | --- | --- |"]
    rows += [f"| `{key_name(key)}` | {key.type} | {_cell(key.holds)} |" for key in KEYS.values()]
    return "\n\n".join(["# Keys in Redis", WRITTEN_BY, ABOUT_KEYS, "\n".join(rows)]) + "\n"


def scripts() -> str:
    """The head of every script and of every file of functions that they share."""
    parts = ["# Scripts", WRITTEN_BY, ABOUT_SCRIPTS]
    parts += [f"## {name}\n\n{_head_of_script(text)}" for name, text in _lua_files("")]
    parts += ["## Shared functions", "Included by the scripts, from `orchestration/state/lua/shared`."]
    parts += [f"### {name}\n\n{_head_of_script(text)}" for name, text in _lua_files("shared")]
    return "\n\n".join(parts) + "\n"


def error_tree() -> str:
    """Every error, below the one it is a kind of."""
    return "\n\n".join(["# Errors", WRITTEN_BY, ABOUT_ERRORS, "\n".join(_kinds_of(errors.ProcessorError, 0))]) + "\n"


def logs() -> str:
    """Every field of a log line, and every component with its tag."""
    fields = ["| field | holds |", "| --- | --- |", *(f"| `{field.name}` | {field.holds} |" for field in FIELDS)]
    components = ["| in `LOG_LEVEL` | tag | loggers | what it writes about |", "| --- | --- | --- | --- |"]
    for component in COMPONENTS:
        loggers = " ".join(f"`{logger}`" for logger in component.loggers)
        components.append(f"| `{component.name}` | `[{component.tag}]` | {loggers} | {component.holds} |")
    parts = ["# Log lines", WRITTEN_BY, ABOUT_LOGS, "## Fields", "\n".join(fields), "## Components", ABOUT_COMPONENTS]
    return "\n\n".join([*parts, "\n".join(components)]) + "\n"


def events() -> str:
    """Every field of an event."""
    rows = ["| field | holds |", "| --- | --- |", *(f"| `{name}` | {holds} |" for name, holds in EVENT_FIELDS.items())]
    return "\n\n".join(["# Events", WRITTEN_BY, ABOUT_EVENTS, "\n".join(rows)]) + "\n"


def metrics() -> str:
    """Every metric: name, type, labels, what it means; by where it comes from."""
    parts = ["# Metrics", WRITTEN_BY, ABOUT_METRICS]
    for source, title in TITLES_OF_METRICS.items():
        rows = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
        rows += [_metric_row(metric) for metric in METRICS.values() if metric.source is source]
        parts += [f"## {title}", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _metric_row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    bounds = ""
    if metric.bounds is not None:
        bounds = f" Buckets: {', '.join(f'{bound:g}' for bound in metric.bounds.shown)}."
    return f"| `{metric.name}` | {metric.type.value} | {labels} | {_cell(metric.help)}{bounds} |"


def traces() -> str:
    """Every span, attribute and event."""
    spans = [
        "| span | one for each | below | begins when | ends when | links |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    spans += [
        f"| `{span.name}` | {span.one_for} | {span.parent} | {span.begins} | {span.ends} | {span.links} |"
        for span in tracing_catalogue.SPANS
    ]
    rows = ["| attribute | of | meaning |", "| --- | --- | --- |"]
    for name, meaning in tracing_catalogue.ATTRIBUTES.items():
        of = ", ".join(f"`{span.name}`" for span in tracing_catalogue.SPANS if name in span.attributes)
        shown = f"{name}<status>" if name.endswith(".") else name
        rows.append(f"| `{shown}` | {of} | {meaning} |")
    events = ["| event | meaning |", "| --- | --- |"]
    events += [f"| `{name}` | {meaning} |" for name, meaning in tracing_catalogue.EVENTS.items()]
    tables = ["## Spans", "\n".join(spans), "## Attributes", "\n".join(rows), "## Events", "\n".join(events)]
    return "\n\n".join(["# Spans and their attributes", WRITTEN_BY, ABOUT_TRACES, *tables]) + "\n"


def key_name(key: Key) -> str:
    """A key's name with a word for each of its parameters: `session:<session>:ready:<queue>`."""
    first, *others = key.template.split("%s")
    name = shown = first
    for part in others:
        shown += f"<{_PARAMETERS[name]}>{part}"
        name += f"%s{part}"
    return shown


#: What a key's name begins with → the parameter that follows. A new kind of key needs a line here.
_PARAMETERS = {
    "session:": "session", "session:%s:ready:": "queue", "session:%s:items:": "action",
    "session:%s:returned:": "action", "session:%s:bits:": "action", "session:%s:itemresults:": "action",
    "last:": "runner", "closed:": "session", "holder:": "task", "cancelled:": "session", "heeded:": "session",
    "paused:": "session", "permits:": "level",
    "blocked:": "level", "slots:": "queue",
    "worker:": "worker", "inflight:": "queue", "waiting:": "queue", "crowded:": "queue",
    "rate:": "limit", "rate:place:": "attempt of a task",
}  # fmt: skip

#: Sections of a docstring → what a reader of the page calls them.
_SECTIONS = {"Args": "Inputs", "Raises": "Fails with", "Returns": "Result"}

#: Page → what writes it.
PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": command_line,
    "reference/settings.md": settings,
    "reference/actions.md": actions,
    "reference/keys.md": keys,
    "reference/metrics.md": metrics,
    "reference/scripts.md": scripts,
    "reference/errors.md": error_tree,
    "reference/logs.md": logs,
    "reference/events.md": events,
    "reference/traces.md": traces,
}


def _lua_files(folder: str) -> Iterator[tuple[str, str]]:
    for file in sorted(LUA.joinpath(folder).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".lua"):
            yield file.name.removesuffix(".lua"), file.read_text(encoding="utf-8")


def _head_of_script(text: str) -> str:
    """The comment that a file opens with: its first words as prose, the rest, which is set in columns, as it stands."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").removeprefix(" "))
    head = "\n".join(lines).strip()
    prose, contract = re.fullmatch(r"(.*?)(\n\nARGV:.*)?", head, re.DOTALL).groups()  # type: ignore[union-attr]
    if contract is None:
        return f"```\n{head}\n```"
    return f"{_plain(prose)}\n\n```\n{contract.strip()}\n```"


def _kinds_of(kind: type[Exception], depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}- `{kind.__name__}`: {' '.join((inspect.getdoc(kind) or '').split())}"
    for other in vars(errors).values():
        if isinstance(other, type) and issubclass(other, Exception) and kind in other.__bases__:
            yield from _kinds_of(other, depth + 1)


def _cell(text: str) -> str:
    """Text in a cell of a table, where `|` ends the cell."""
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Text where `<…>` would be taken for HTML."""
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _help(command: click.Command, name: str) -> str:
    context = command.make_context(name, [], resilient_parsing=True, max_content_width=100, terminal_width=100)
    return f"```\n{command.get_help(context)}\n```"


def _signature(name: str, function: Callable[..., Any]) -> str:
    shown = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "ctx":
            continue  # the engine gives it
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
