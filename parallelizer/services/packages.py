"""Whether `config`, `orchestration`, `tasks` and `parallelizer` are ours: the names are common ones.

A `tasks.py` in the folder where a worker starts silently replaces our package; a `config/` there breaks its import.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION = "celery-parallelizer"
PACKAGES = ("config", "orchestration", "tasks", "parallelizer")


def strange_packages(first: Path) -> list[str]:
    """One complaint, `what is wrong; what to do`, for each package that is not ours when `first` is looked in first."""
    complaints = []
    for name in PACKAGES:
        spec = PathFinder.find_spec(name, [str(first)])
        if spec is None or spec.origin is None:  # a folder without __init__.py hides nothing that is installed
            spec = find_spec(name)
        if spec is None or spec.origin is None:
            complaints.append(f"the package {name!r} of {DISTRIBUTION} is not to be found; install {DISTRIBUTION} anew")
        elif not _declares_us(Path(spec.origin)):
            complaints.append(
                f"`import {name}` finds {spec.origin}, which is not part of {DISTRIBUTION}; "
                "rename it, move it into a package, start from another folder, or uninstall the distribution it is of"
            )
    return complaints


def _declares_us(module_file: Path) -> bool:
    if module_file.name != "__init__.py":
        return False
    return f'__distribution__ = "{DISTRIBUTION}"' in module_file.read_text(encoding="utf-8", errors="replace")
