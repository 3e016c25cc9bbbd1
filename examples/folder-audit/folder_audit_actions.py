"""The actions of the folder audit that are its own; `files.list` and `files.hash` are built in.

Workers find this module through `ACTION_MODULES=folder_audit_actions`, with this folder on `PYTHONPATH`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from orchestration.registry import action
from parallelizer.actions.files import hash_file

File = dict[str, Any]


class FileChangedError(Exception):
    """A file is no longer what the earlier manifest says."""


@action("folder_audit.manifest")
def manifest(listed: list[File], hashed: list[File | None] | None, reports: str) -> dict[str, Any]:
    """Write the manifest (as `sha256sum` writes it) and add up what the files have in common.

    Args: hashed: one entry for each listed file, None where it could not be read.
    """
    read = [file for file in hashed or [] if file is not None]
    known = {file["path"] for file in read}
    lines = [manifest_line(file["sha256"], file["path"]) for file in read]
    content = "".join(lines).encode()
    folder = Path(reports)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.sha256"
    path.write_bytes(content)
    groups = [group for group in by_hash(read).values() if len(group) > 1]
    return {
        "path": str(path),
        "sha256": hashlib.sha256(content).hexdigest(),
        "files": len(read),
        "bytes": sum(file["bytes"] for file in read),
        "lines": sum(file["lines"] for file in read),
        "unreadable": [file["path"] for file in listed if file["path"] not in known],
        "duplicate_groups": len(groups),
        "files_in_groups": sum(len(group) for group in groups),
        "bytes_freed_without_duplicates": sum(group[0]["bytes"] * (len(group) - 1) for group in groups),
    }


@action("folder_audit.duplicates")
def duplicates(manifest: str, reports: str) -> dict[str, Any]:
    """Write down which files are equal, a paragraph for each group."""
    groups = [group for group in by_hash(read_manifest(manifest)).values() if len(group) > 1]
    path = Path(reports) / "duplicates.txt"
    paragraphs = [
        "\n".join([f"{len(group)} equal files:", *(f"  {file['path']}" for file in group)]) for group in groups
    ]
    path.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    return {"path": str(path), "groups": len(groups)}


@action("folder_audit.read_manifest")
def read_manifest(path: str) -> list[File]:
    """Read a manifest written by this workflow or by `sha256sum`."""
    return [parse_manifest_line(line, path) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]


@action("folder_audit.verify")
def verify(folder: str, path: str, sha256: str) -> bool:
    """Read a file again and compare it with the earlier manifest.

    Raises: FileChangedError: it is another one now, or gone.
    """
    try:
        found = hash_file(folder, path)
    except FileNotFoundError:
        raise FileChangedError(f"{path} is gone") from None
    if found["sha256"] != sha256:
        raise FileChangedError(f"{path} has changed: sha256 was {sha256[:12]}…, is {str(found['sha256'])[:12]}…")
    return True


@action("folder_audit.summary")
def summary(
    manifest: dict[str, Any],
    duplicates: dict[str, Any] | None,
    listed: list[File],
    earlier: list[File] | None,
    verified: list[bool | None] | None,
) -> dict[str, Any]:
    """Put the figures of both branches together; a branch that did not run leaves None."""
    verification = None
    if earlier is not None:
        outcomes = verified or [None] * len(earlier)
        before = {file["path"] for file in earlier}
        verification = {
            "unchanged": sum(outcome is True for outcome in outcomes),
            "changed_or_gone": [file["path"] for file, outcome in zip(earlier, outcomes, strict=True) if not outcome],
            "new": [file["path"] for file in listed if file["path"] not in before],
        }
    return {
        "manifest": manifest,
        "duplicates_report": duplicates["path"] if duplicates else None,
        "verification": verification,
    }


def manifest_line(sha256: str, path: str) -> str:
    """A line of `sha256sum`: a name with a backslash or a line break is escaped, and marked by a leading backslash."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == path else chr(92)}{sha256}  ./{escaped}\n"


def parse_manifest_line(line: str, manifest: str) -> File:
    escaped = line.startswith("\\")
    sha256, separator, path = line.removeprefix("\\").partition("  ")
    if not separator or len(sha256) != 64:
        raise ValueError(f"{manifest}: not a line of sha256sum: {line[:80]!r}")
    if escaped:
        path = path.replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")
    return {"sha256": sha256, "path": path.removeprefix("./")}


def by_hash(files: list[File]) -> dict[str, list[File]]:
    groups: dict[str, list[File]] = {}
    for file in files:
        groups.setdefault(file["sha256"], []).append(file)
    return groups
