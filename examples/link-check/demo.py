"""Check the links of a manual with the workflow beside this file, then check every figure without the processor.

    python examples/link-check/demo.py                  the Python manual, where it is installed
    FOLDER=~/site python examples/link-check/demo.py    all .html files of a folder of your own

The figures are computed twice more: by the same functions in a loop, in this one process, to see what the parallel
branches gain; and in quite another way (`independent_check.py`), to see that they are right.
Exit code: 0 when every figure agrees or no manual is installed, 1 when one differs, else that of `parallelizer run`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import suppress
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
from independent_check import independent_figures
from link_check_actions import check, collect, index, links_in_words, summary
from link_check_pages import UnparsablePage

from parallelizer.actions.files import list_files

HERE = Path(__file__).resolve().parent
MANUALS = Path("/usr/share/doc")
HOW_TO_GET_IT = """\
The Python manual is not installed here, so there was nothing to check.
On Debian 12: apt install python3.11-doc. On another Debian or Ubuntu: apt install python3-doc.
Or check any other folder of HTML pages: make demo-links FOLDER=~/site"""

#: Pages and bytes of python3.11-doc 3.11.2-6+deb12u9, whose figures were found with grep, find and awk.
KNOWN_TREE = (530, 50_688_844)
KNOWN_FIGURES = {
    "pages": 530, "unparsable": 0, "links": 164_265, "external": 9_085, "good": 152_667, "broken": 2_513,
    "without a file": 2_509, "without an anchor": 4, "page and target": 2_470,
}  # fmt: skip


def main(manuals: Path = MANUALS) -> int:
    data_dir = data_dir_of("link-check")
    folder = chosen_folder() or installed_manual(manuals)
    if folder is None:
        console.print(HOW_TO_GET_IT, markup=False)
        return 0
    payload: dict[str, Any] = {
        "folder": str(folder),
        "pattern": "*.html",
        "exclude": own_data_inside(folder, data_dir),
        "reports": str(reports_of(data_dir, str(folder))),
    }
    console.print(f"Checking the links of [bold]{payload['pattern']}[/] in [bold]{payload['folder']}[/]")
    code, run = run_workflow(HERE, "link_check_actions", payload, data_dir)
    if run is None or run["status"] != "succeeded":
        return code or 1

    found = run["output"]["summary"]
    began = time.perf_counter()
    alone = summary_in_one_process(payload)
    seconds = time.perf_counter() - began
    columns = {
        "workflow": figures_of(found),
        "one process": figures_of(alone),
        "regex": independent_figures(payload["folder"], payload["pattern"], payload["exclude"]),
    }
    if tree_of(payload) == KNOWN_TREE:
        columns["known"] = KNOWN_FIGURES
    differing = print_comparison(columns)
    console.print(
        f"The workflow took {run['duration_seconds']:.1f} s (its servers and workers ran already), "
        f"the same functions in one process {seconds:.1f} s."
    )
    print_findings(found, run["output"]["report"])
    if differing:
        console.print(f"[red]{differing} figures differ.[/] Did a page change while this ran?")
        return 1
    console.print("[green]Every figure agrees.[/]")
    return 0


def installed_manual(manuals: Path) -> Path | None:
    """The manual of Debian 12, whose figures are known, else any other of Python 3; None where there is none."""
    places = [manuals / "python3.11" / "html", *sorted(manuals.glob("python3*/html"), reverse=True)]
    return next((place.resolve() for place in places if (place / "index.html").is_file()), None)


def tree_of(payload: dict[str, Any]) -> tuple[int, int]:
    """Number and bytes of the pages."""
    listed = list_files(payload["folder"], payload["pattern"], exclude=payload["exclude"])
    return len(listed), sum(page["bytes"] for page in listed)


def summary_in_one_process(payload: dict[str, Any]) -> Figures:
    """What the workflow does, as a loop: the actions are ordinary functions."""
    folder = payload["folder"]
    listed = list_files(folder, payload["pattern"], exclude=payload["exclude"])
    with tempfile.TemporaryDirectory() as work:
        collected = []
        for page in listed:
            with suppress(UnparsablePage, OSError):
                collected.append(collect(folder, page["path"], work))
        built = index(folder, collected, work)
        checked = [check(page, built["path"], work) for page in built["pages"]]
    return summary(listed, built["pages"], checked)


def figures_of(found: Figures) -> Figures:
    return {
        "pages": found["pages"],
        "unparsable": len(found["unparsable"]),
        "links": found["links"],
        "external": found["external"],
        "good": found["good"],
        "broken": found["broken"],
        "without a file": found["without_file"],
        "without an anchor": found["without_anchor"],
        "page and target": found["page_target_pairs"],
    }


def print_findings(found: Figures, report: str | None) -> None:
    print_some("Can't be parsed", found["unparsable"])
    print_some("Could not be checked", found["unchecked"])
    targets = [
        f"{entry['target']} ({links_in_words(entry['links'])}, {entry['reason']})" for entry in found["broken_targets"]
    ]
    print_some("Broken", targets)
    if report:
        console.print(f"All of them, with the pages that have them, are listed in {report}", markup=False)


if __name__ == "__main__":
    end_with(main)
