"""Reads a recording from a file, bounded in size on disk and after decompression."""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from pathlib import Path
from typing import Final

from orchestration.definition.check import MAX_ACTIONS
from orchestration.definition.json_reader import find_json_places, read_json
from orchestration.definition.places import Document
from orchestration.errors import DefinitionError, Problem
from parallelizer.wfformat.parse import parse_recording
from parallelizer.wfformat.recording import Recording

#: Largest file, and largest text in a compressed one. 10,000 tasks have 7 MB (generated) to 29 MB (with scripts as
#: commands, as Nextflow records them).
MAX_BYTES: Final = 64 * 1_048_576
_GZIP: Final = b"\x1f\x8b"


def read_recording(path: Path, max_tasks: int = MAX_ACTIONS) -> Recording:
    """Read a recording in WfFormat 1.0 to 1.6, as JSON or as JSON compressed with gzip.

    Args: max_tasks: each task becomes an action, so the setting MAX_ACTIONS.
    Raises: DefinitionError: with every mistake, each with its file, place, field and what to do.
    """
    file = str(path)
    text = _decode(_unpack(_read(path), file), file)
    try:
        value = read_json(text, file)
    except DefinitionError as error:
        if not error.problems[0].message.startswith("not JSON"):
            raise
        hint = "a recording in WfFormat is JSON; a definition is run without --wfformat"
        first = error.problems[0]
        raise DefinitionError([Problem(first.message, "", file, first.line, first.column, hint)]) from None
    return parse_recording(Document(value, file, text, lambda: find_json_places(text)), max_tasks)


def _read(path: Path) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise _wrong(str(path), "a folder, not a file" if stat.S_ISDIR(about.st_mode) else "not a file")
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _wrong(str(path), "there is no such file") from None
    except (OSError, ValueError) as error:
        raise _wrong(str(path), f"can't be read: {getattr(error, 'strerror', None) or error}") from None
    return _bounded(data, str(path))


def _unpack(data: bytes, file: str) -> bytes:
    if not data.startswith(_GZIP):
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            return _bounded(packed.read(MAX_BYTES + 1), file, " when unpacked")
    except (OSError, EOFError, zlib.error) as error:
        raise _wrong(file, f"its compression is broken: {error}", "get the file again") from None


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = f"not UTF-8: byte 0x{data[error.start]:02x} at {error.start:,} can't be read"
        raise _wrong(file, wrong, "save it as UTF-8") from None


def _bounded(data: bytes, file: str, when: str = "") -> bytes:
    if len(data) > MAX_BYTES:
        raise _wrong(file, f"larger than {MAX_BYTES:,} bytes{when}, the most that is read")
    return data


def _wrong(file: str, message: str, hint: str = "") -> DefinitionError:
    return DefinitionError([Problem(message, file=file, hint=hint)])
