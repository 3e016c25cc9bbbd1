"""Reads a definition from a file, a text or a dict, and checks all of it before anything runs.

Called by the command line, by `run_workflow` and by tests. Reads the named file and does nothing else.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from orchestration.definition.check import MAX_ACTIONS, check_document
from orchestration.definition.json_reader import MAX_JSON_BYTES, MAX_JSON_DEPTH, find_json_places, read_json
from orchestration.definition.places import Document, DocumentPath, Finding, Places
from orchestration.definition.schema import Definition
from orchestration.definition.yaml_reader import MAX_YAML_BYTES, read_yaml
from orchestration.errors import DefinitionError, Problem

SUFFIXES = (".yaml", ".yml", ".json")
#: Most values in a definition given as a dict, where no file's size bounds them.
MAX_VALUES = 1_000_000
_INT64 = 2**63


def load_definition(
    source: os.PathLike[str] | str | bytes | Mapping[str, object], *, file: str = "", max_actions: int = MAX_ACTIONS
) -> Definition:
    """Read and check a definition. The actions it uses must have been loaded (`registry.load_actions`).

    Args: source: a path (a `Path`, or a string of one line that ends in .yaml, .yml or .json), the text of a
        definition, or a dict. file: name for messages when `source` is no path. max_actions: most actions allowed.
    Raises: DefinitionError: with every mistake found, in the order of the file.
    """
    document = read_document(source, file)
    findings = _find_unusable(document.value)
    if findings:
        raise DefinitionError(document.problems(findings))
    return check_document(document, max_actions)


def read_document(source: os.PathLike[str] | str | bytes | Mapping[str, object], file: str = "") -> Document:
    """Read a definition without checking it.

    Raises: DefinitionError: there is no such file, or it is not YAML or JSON.
    """
    if isinstance(source, Mapping):
        return Document(dict(source), file)
    if isinstance(source, os.PathLike) or (isinstance(source, str) and _is_path(source)):
        path = Path(source)
        return _parse(_read_file(path), str(path))
    if isinstance(source, bytes):
        return _parse(source, file)
    if isinstance(source, str):
        return _parse(source.encode("utf-8", "surrogatepass"), file)
    raise TypeError(f"a definition is a path, a text or a mapping, not {type(source).__name__}")


def _is_path(text: str) -> bool:
    return "\n" not in text and text.endswith(SUFFIXES)


def _read_file(path: Path) -> bytes:
    def wrong(message: str, hint: str = "") -> DefinitionError:
        return DefinitionError([Problem(message, file=str(path), hint=hint)])

    limit = MAX_JSON_BYTES if path.suffix == ".json" else MAX_YAML_BYTES
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise wrong("not a file" if not stat.S_ISDIR(about.st_mode) else "a folder, not a file")
        if about.st_size > limit:
            raise _too_large(about.st_size, limit, str(path))
        with path.open("rb") as opened:
            return opened.read(limit + 1)
    except FileNotFoundError:
        raise wrong("there is no such file") from None
    except (OSError, ValueError) as error:
        raise wrong(f"can't be read: {getattr(error, 'strerror', None) or error}") from None


def _too_large(size_bytes: int, limit: int, file: str) -> DefinitionError:
    message = f"the definition has {size_bytes} bytes; at most {limit} are allowed"
    hint = "keep data out of it (payload, files), or write it as JSON" if limit == MAX_YAML_BYTES else ""
    return DefinitionError([Problem(message, file=file, hint=hint)])


def _parse(data: bytes, file: str) -> Document:
    if len(data) > MAX_JSON_BYTES:
        raise _too_large(len(data), MAX_JSON_BYTES, file)
    text = _decode(data, file)
    if file.endswith(".json") or (not file.endswith((".yaml", ".yml")) and text.lstrip().startswith("{")):
        try:
            return Document(read_json(text, file), file, text, lambda: find_json_places(text))
        except DefinitionError as error:
            if file.endswith(".json") or not error.problems[0].message.startswith("not JSON"):
                raise
    if len(data) > MAX_YAML_BYTES:
        raise _too_large(len(data), MAX_YAML_BYTES, file)

    def find_places() -> Places:
        places = Places()
        read_yaml(text, file, places)
        return places

    return Document(read_yaml(text, file), file, text, find_places)


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2]) + 1
        hint = "it looks like UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "save it as UTF-8"
        message = f"not UTF-8: byte 0x{data[error.start]:02x} can't be read"
        raise DefinitionError([Problem(message, "", file, line, column, hint)]) from None


def _find_unusable(document: object) -> list[Finding]:
    """Find what is no JSON, or can't be stored: NaN, integers beyond 64 bits, NUL, half surrogates, other types."""
    findings: list[Finding] = []
    stack: list[tuple[DocumentPath, object]] = [((), document)]
    count = 0
    while stack:
        path, value = stack.pop()
        count += 1
        if count > MAX_VALUES:
            return [*findings, Finding((), f"more than {MAX_VALUES} values")]
        if not isinstance(value, (Mapping, list, tuple)):
            if finding := _unusable_value(path, value):
                findings.append(finding)
        elif len(path) >= MAX_JSON_DEPTH:
            return [*findings, Finding(path[:10], f"nested more than {MAX_JSON_DEPTH} deep")]
        else:
            stack.extend(_children(path, value, findings))
    return findings


def _unusable_value(path: DocumentPath, value: object) -> Finding | None:
    if isinstance(value, str):
        reason = _unusable_text(value)
        return Finding(path, reason) if reason else None
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return None if -_INT64 <= value < _INT64 else Finding(path, "an integer beyond 64 bits", "write it as a string")
    if isinstance(value, float):
        return None if math.isfinite(value) else Finding(path, f"{value} is no JSON number")
    return Finding(path, f"a {type(value).__name__} is no JSON value")


def _children(
    path: DocumentPath, value: Mapping[object, object] | list[object] | tuple[object, ...], findings: list[Finding]
) -> list[tuple[DocumentPath, object]]:
    if not isinstance(value, Mapping):
        return [((*path, index), element) for index, element in enumerate(value)]
    children: list[tuple[DocumentPath, object]] = []
    for key, element in value.items():
        if not isinstance(key, str):
            findings.append(Finding(path, f"key {key!r} is no string"))
        elif reason := _unusable_text(key):
            findings.append(Finding(path, f"in a key: {reason}"))
        else:
            children.append(((*path, key), element))
    return children


def _unusable_text(text: str) -> str:
    if "\x00" in text:
        return "a NUL character, which can't be stored"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "half of a surrogate pair (\\ud800 … \\udfff), which is no character"
    return ""
