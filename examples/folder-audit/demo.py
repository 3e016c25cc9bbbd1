"""Audit a folder with the workflow beside this file, then check every figure without the processor.

    python examples/folder-audit/demo.py                    the .py files of Python's standard library
    FOLDER=~/Pictures python examples/folder-audit/demo.py  every file of a folder of your own

The second run verifies the files against the manifest of the first one.
Exit code: 0 when every figure agrees, 1 when one differs, else that of `parallelizer run`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what the demos share

from demonstration import (
    Figures,
    chosen_folder,
    console,
    data_dir_of,
    end_with,
    own_data_inside,
    print_comparison,
    print_some,
    reports_of,
    run_workflow,
)

HERE = Path(__file__).resolve().parent


def main() -> int:
    data_dir = data_dir_of("folder-audit")
    payload = what_to_audit(data_dir)
    console.print(f"Auditing [bold]{payload['pattern']}[/] in [bold]{payload['folder']}[/]")
    code, run = run_workflow(HERE, "folder_audit_actions", payload, data_dir)
    if run is None or run["status"] != "succeeded":
        return code or 1

    summary = run["output"]
    found = figures_of_workflow(summary)
    columns = {"workflow": found, "Python alone": figures_of_python(payload)}
    if by_tools := figures_of_tools(payload):
        columns["system tools"] = by_tools
    differing = print_comparison(columns)
    print_findings(summary)
    if differing:
        console.print(f"[red]{differing} figures differ.[/] Did a file change while this ran?")
        return 1
    kept = last_manifest(data_dir, payload["folder"])
    if summary["verification"] and summary["verification"]["changed_or_gone"]:
        console.print(
            f"[green]Every figure agrees.[/] Files have changed; to accept that, remove {kept}", soft_wrap=True
        )
        return 0
    console.print("[green]Every figure agrees.[/] Run it again: the files are then verified against this manifest.")
    shutil.move(summary["manifest"]["path"], kept)
    return 0


def what_to_audit(data_dir: Path) -> dict[str, Any]:
    """The payload: `FOLDER`, or the standard library without what was installed beside it."""
    own = chosen_folder()
    folder = own or Path(sysconfig.get_path("stdlib")).resolve()
    exclude = [] if own else ["/site-packages", "/dist-packages"]
    payload: dict[str, Any] = {
        "folder": str(folder),
        "pattern": "*" if own else "*.py",
        "exclude": exclude + own_data_inside(folder, data_dir),
        "reports": str(reports_of(data_dir, str(folder))),
    }
    earlier = last_manifest(data_dir, str(folder))
    if earlier.exists():
        payload["earlier_manifest"] = str(earlier)
    return payload


def last_manifest(data_dir: Path, folder: str) -> Path:
    return reports_of(data_dir, folder) / "last-manifest.sha256"


def figures_of_workflow(summary: Figures) -> Figures:
    manifest, verification = summary["manifest"], summary["verification"]
    return figures(
        {name: manifest[name] for name in ("files", "bytes", "lines")},
        (manifest["duplicate_groups"], manifest["files_in_groups"], manifest["bytes_freed_without_duplicates"]),
        manifest["sha256"],
        (verification["unchanged"], len(verification["changed_or_gone"])) if verification else None,
    )


def figures_of_python(payload: dict[str, Any]) -> Figures:
    """The same figures from `os.walk` and `hashlib`, in this process."""
    root = payload["folder"]
    hashes: dict[str, str] = {}
    sizes: dict[str, int] = {}
    lines = 0
    for here, folders, names in os.walk(root):
        below = os.path.relpath(here, root)
        for name in list(folders):
            if "/" + os.path.normpath(os.path.join(below, name)) in payload["exclude"]:
                folders.remove(name)
        for name in names:
            full = os.path.join(here, name)
            if not fnmatchcase(name, payload["pattern"]) or os.path.islink(full) or not os.path.isfile(full):
                continue
            path = os.path.normpath(os.path.join(below, name))
            if not os.access(full, os.R_OK):
                continue
            content = Path(full).read_bytes()
            hashes[path], sizes[path] = hashlib.sha256(content).hexdigest(), len(content)
            lines += content.count(b"\n")
    in_order = sorted(hashes, key=os.fsencode)
    manifest = b"".join(as_sha256sum(hashes[path], path) for path in in_order)
    verified = None
    if "earlier_manifest" in payload:
        earlier = Path(payload["earlier_manifest"]).read_bytes().splitlines(keepends=True)
        now = set(manifest.splitlines(keepends=True))
        verified = (sum(line in now for line in earlier), sum(line not in now for line in earlier))
    return figures(
        {"files": len(hashes), "bytes": sum(sizes.values()), "lines": lines},
        groups_in([(hashes[path], sizes[path]) for path in in_order]),
        hashlib.sha256(manifest).hexdigest(),
        verified,
    )


def as_sha256sum(sha256: str, path: str) -> bytes:
    name = os.fsencode(path)
    escaped = name.replace(b"\\", rb"\\").replace(b"\n", rb"\n").replace(b"\r", rb"\r")
    return (b"" if escaped == name else b"\\") + sha256.encode() + b"  ./" + escaped + b"\n"


def figures_of_tools(payload: dict[str, Any]) -> Figures | None:
    """The same figures from the system's own tools, or None where one of them is missing."""
    if not all(map(shutil.which, ("find", "sha256sum", "wc", "xargs", "cat"))):
        return None
    without = [
        part for path in payload["exclude"] for part in ("-not", "-path", f".{path}", "-not", "-path", f".{path}/*")
    ]
    listing = tool(["find", ".", "-type", "f", "-name", payload["pattern"], *without, "-print0"], payload)
    root = os.fsencode(payload["folder"])
    paths = sorted(path for path in listing.split(b"\0")[:-1] if os.access(os.path.join(root, path), os.R_OK))
    names = b"".join(path + b"\0" for path in paths)
    manifest = tool(["xargs", "-0r", "sha256sum", "--"], payload, names)
    lines, size_bytes = tool(["wc", "-lc"], payload, tool(["xargs", "-0r", "cat", "--"], payload, names)).split()
    sizes = [int(size) for size in tool(["xargs", "-0r", "stat", "-c", "%s", "--"], payload, names).split()]
    hashes = [line.lstrip(b"\\")[:64].decode() for line in manifest.splitlines()]
    verified = None
    if "earlier_manifest" in payload:
        checked = tool(["sha256sum", "-c", payload["earlier_manifest"]], payload).splitlines()
        good = sum(line.endswith(b": OK") for line in checked)
        verified = (good, len(checked) - good)
    return figures(
        {"files": len(paths), "bytes": int(size_bytes), "lines": int(lines)},
        groups_in(list(zip(hashes, sizes, strict=True))),
        hashlib.sha256(manifest).hexdigest(),
        verified,
    )


def tool(command: list[str], payload: dict[str, Any], given: bytes = b"") -> bytes:
    """What a command prints when it runs in the audited folder; sha256sum and wc may well find fault with a file."""
    environment = os.environ | {"LC_ALL": "C"}
    done = subprocess.run(
        command, cwd=payload["folder"], input=given, capture_output=True, env=environment, check=False
    )
    return done.stdout


def groups_in(hashes_and_sizes: list[tuple[str, int]]) -> tuple[int, int, int]:
    """Groups of equal files, the files in them, and the bytes that removing all but one of each would free."""
    sizes: dict[str, list[int]] = {}
    for sha256, size_bytes in hashes_and_sizes:
        sizes.setdefault(sha256, []).append(size_bytes)
    groups = [group for group in sizes.values() if len(group) > 1]
    return len(groups), sum(map(len, groups)), sum(sum(group[1:]) for group in groups)


def figures(
    totals: Figures, groups: tuple[int, int, int], manifest_sha256: str, verified: tuple[int, int] | None
) -> Figures:
    found = {
        **totals,
        "equal groups": groups[0],
        "files in them": groups[1],
        "bytes to free": groups[2],
        "manifest sha256": manifest_sha256,
    }
    if verified is not None:
        found |= {"unchanged": verified[0], "changed or gone": verified[1]}
    return found


def print_findings(summary: Figures) -> None:
    findings = {
        "Can't be read": summary["manifest"]["unreadable"],
        "Changed or gone since the last run": (summary["verification"] or {}).get("changed_or_gone", []),
        "New since the last run": (summary["verification"] or {}).get("new", []),
    }
    for title, paths in findings.items():
        print_some(title, paths)
    if summary["duplicates_report"]:
        console.print(f"Equal files are listed in {summary['duplicates_report']}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    end_with(main)
