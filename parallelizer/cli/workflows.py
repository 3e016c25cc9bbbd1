"""`parallelizer validate`, `graph`, `publish`, `workflows`: definitions, before and between runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from orchestration.definition.schema import Definition
from orchestration.errors import DefinitionError
from orchestration.plan.compile import compile_plan
from orchestration.store.workflows import list_workflows, register_version
from parallelizer.cli.connect import read_settings, services_for_reading
from parallelizer.cli.failures import WRONG_USE, WrongUse
from parallelizer.cli.output import AsJson, console_for, print_json
from parallelizer.cli.source import PublishedName, load_published, read_file, read_source
from parallelizer.cli.wfformat import AsWfFormat, validate_recording
from parallelizer.cli.words import local_time, rfc3339
from parallelizer.rendering import RENDERERS
from parallelizer.services.known_actions import load_known_actions

DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]
DefinitionFile = Annotated[Path, typer.Argument(metavar="FILE", help="A definition: .yaml, .yml or .json.")]


class Form(StrEnum):
    """In which form a definition is shown."""

    YAML = "yaml"
    JSON = "json"
    PYTHON = "python"


class Picture(StrEnum):
    """How a graph is drawn."""

    TEXT = "text"
    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    for command in (validate, graph, publish, workflows):
        app.command()(command)


def validate(
    file: DefinitionFile,
    form: Annotated[Form | None, typer.Option("--as", help="Print the definition in this form.")] = None,
    wfformat: AsWfFormat = False,
    as_json: AsJson = False,
) -> None:
    """Check a definition and report every mistake.

    Nothing is run. With --as the definition is printed in another form. With --wfformat a recording is checked and
    measured: its graph, its critical path, and how long it takes on 2 to 100 slots.
    """
    settings = read_settings(None)
    load_known_actions(settings)
    if wfformat:
        if form is not None:
            raise WrongUse("--as is for definitions; a recording in WfFormat is only checked and measured")
        validate_recording(file, settings, as_json=as_json)
        return
    try:
        definition = read_file(file, settings.max_actions)
        plan = compile_plan(definition)
    except DefinitionError as error:
        if not as_json:
            raise
        print_json({"valid": False, "problems": [asdict(problem) for problem in error.problems]})
        raise typer.Exit(WRONG_USE) from None
    if form is not None:
        print(_in_form(definition, form), end="")
    elif as_json:
        print_json({
            "valid": True, "workflow": definition.name, "version_id": definition.version_id,
            "actions": len(plan.actions), "branches": len(plan.branches), "problems": [],
        })  # fmt: skip
    else:
        actions, branches = len(plan.actions), len(plan.branches)
        print(f"{file}: {definition.name} is right: {actions:,} actions in {branches:,} branches")


def graph(
    workflow: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A definition, or a published NAME[@VERSION].")],
    picture: Annotated[Picture, typer.Option("--format", help="How to draw it.")] = Picture.TEXT,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the picture to this file.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Draw the graph of a workflow."""
    settings = read_settings(data_dir)
    load_known_actions(settings)
    source = read_source(workflow, settings.max_actions)
    if isinstance(source, PublishedName):
        with services_for_reading(settings) as services:
            source = load_published(services.database, source, settings.max_actions)
    drawn = RENDERERS[picture](compile_plan(source)).rstrip("\n") + "\n"
    if output is None:
        print(drawn, end="")
        return
    try:
        output.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise WrongUse(f"can't write {output}: {error.strerror}") from None


def publish(file: DefinitionFile, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Keep a definition, to be run by name.

    It becomes the newest version of its workflow; the same content is always the same version.
    """
    settings = read_settings(data_dir)
    load_known_actions(settings)
    definition = read_file(file, settings.max_actions)
    with services_for_reading(settings) as services:
        version = register_version(
            services.database, definition.name, definition.version_id, definition.to_dict(), publish=True
        )
    if as_json:
        print_json({"workflow": version.workflow, "version": version.number, "version_id": version.version_id})
    else:
        print(f"{version.workflow}@{version.number} is published; run it with: parallelizer run {version.workflow}")


def workflows(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the published workflows."""
    with services_for_reading(read_settings(data_dir)) as services:
        found = list_workflows(services.database)
    if as_json:
        print_json([
            {"workflow": each.current.workflow, "version": each.current.number, "versions": each.versions,
             "version_id": each.current.version_id, "published_at": rfc3339(each.current.published_at)}
            for each in found
        ])  # fmt: skip
        return
    if not found:
        print("no workflow is published here; `parallelizer publish FILE` does that")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in ("workflow", "version", "published"):
        table.add_column(column)
    for each in found:
        table.add_row(Text(each.current.workflow), str(each.current.number), local_time(each.current.published_at))
    console_for(result_is_json=False).print(table)


def _in_form(definition: Definition, form: Form) -> str:
    if form is Form.YAML:
        return definition.to_yaml()
    if form is Form.PYTHON:
        return definition.to_python()
    return json.dumps(definition.to_dict(), indent=2, ensure_ascii=False) + "\n"
