"""What a person names on the command line: a file with a definition, or a published workflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestration.definition.loader import SUFFIXES, load_definition
from orchestration.definition.schema import Definition, is_name
from orchestration.store.pool import Database
from orchestration.store.workflows import find_version, load_version
from parallelizer.cli.failures import WrongUse


@dataclass(frozen=True, slots=True)
class PublishedName:
    """`NAME` or `NAME@VERSION`."""

    name: str
    number: int | None

    def __str__(self) -> str:
        return self.name if self.number is None else f"{self.name}@{self.number}"


def read_source(given: str, max_actions: int) -> Definition | PublishedName:
    """Tell a file from a name, and read the file.

    Raises: DefinitionError: the file can't be read or is wrong. WrongUse: it is neither.
    """
    path = Path(given)
    if given.endswith(SUFFIXES) or "/" in given or path.exists():
        return read_file(path, max_actions)
    name, separator, number = given.partition("@")
    if not is_name(name):
        raise WrongUse(f"{given!r} is neither a file nor a name of a workflow")
    if separator and not (number.isdecimal() and int(number) > 0):
        raise WrongUse(f"{given!r}: the version after @ is a number from 1 on, as in {name}@3")
    return PublishedName(name, int(number) if separator else None)


def read_file(path: Path, max_actions: int) -> Definition:
    """Read and check the definition in a file.

    Raises: DefinitionError: with all mistakes. WrongUse: it is no kind of file that holds a definition.
    """
    if path.is_file() and path.suffix not in SUFFIXES:
        raise WrongUse(f"{path}: a definition is a file that ends in {', '.join(SUFFIXES)}")
    return load_definition(path, max_actions=max_actions)


def load_published(database: Database, named: PublishedName, max_actions: int) -> Definition:
    """The definition of a published workflow.

    Raises: UnknownWorkflow: with the nearest names.
    """
    version = find_version(database, named.name, named.number)
    return load_definition(load_version(database, version.version_id).definition, max_actions=max_actions)
