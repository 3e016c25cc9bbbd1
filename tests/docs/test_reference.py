"""The reference pages say what the program says, and the pages link to what exists."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration.plan import decide
from orchestration.state.keys import KEYS
from orchestration.vocabulary import JoinCounts, Outcome, TriggerRule
from tests.docs.reference import DOCS, PAGES, key_name


@pytest.mark.parametrize("page", PAGES)
def test_reference_page_is_up_to_date(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == PAGES[page](), "run: python -m tests.docs.reference"


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md"), *(DOCS.parent / "examples").rglob("*.md")]
    broken = [
        f"{page.relative_to(DOCS.parent)} → {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_every_page_is_listed_in_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = [page for page in DOCS.rglob("*.md") if page != DOCS / "index.md"]
    assert not [str(page) for page in pages if f"({page.relative_to(DOCS).as_posix()})" not in index]


def test_the_design_explains_every_key() -> None:
    table = section_of_design("Live state")
    names = {key_name(key) for key in KEYS.values()}
    explained = set(re.findall(r"`([^`]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
    assert explained == names


def test_the_design_shows_the_trigger_rules_as_they_are() -> None:
    """Each cell of the table against `decide`, over every combination of up to three predecessors."""
    rows = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", section_of_design("Joins and trigger rules"), re.MULTILINE)
    shown = {
        rule: (RUNS[runs], OTHERWISE[other]) for names, runs, other in rows for rule in re.findall(r"`(\w+)`", names)
    }
    assert set(shown) == {rule.value for rule in TriggerRule}
    for rule, (runs, other) in shown.items():
        for s, f, k, u in itertools.product(range(4), repeat=4):
            if 0 < s + f + k + u <= 3:
                expected = None if runs(s, f, k, u) else other(s, f, k, u)
                assert decide(TriggerRule(rule), JoinCounts(s, f, k, u)) is expected, (rule, s, f, k, u)


#: What a cell of the table says → what it means, for the numbers of predecessors that ended S, F, K and U.
RUNS: dict[str, Callable[[int, int, int, int], bool]] = {
    "all S": lambda s, f, k, u: f + k + u == 0,
    "always": lambda s, f, k, u: True,
    "any S": lambda s, f, k, u: s > 0,
    "no F, no U": lambda s, f, k, u: f + u == 0,
    "no F, no U, at least one S": lambda s, f, k, u: f + u == 0 and s > 0,
    "all F or U": lambda s, f, k, u: s + k == 0,
    "any F or U": lambda s, f, k, u: f + u > 0,
    "any S or F": lambda s, f, k, u: s + f > 0,
    "all K": lambda s, f, k, u: s + f + u == 0,
    "no K": lambda s, f, k, u: k == 0,
}
OTHERWISE: dict[str, Callable[[int, int, int, int], Outcome | None]] = {
    "–": lambda s, f, k, u: None,
    "K": lambda s, f, k, u: Outcome.SKIPPED,
    "U": lambda s, f, k, u: Outcome.UPSTREAM_FAILED,
    "U if any F or U, else K": lambda s, f, k, u: Outcome.UPSTREAM_FAILED if f + u else Outcome.SKIPPED,
    "K if all K, else U": lambda s, f, k, u: Outcome.UPSTREAM_FAILED if s + f + u else Outcome.SKIPPED,
}


def section_of_design(title: str) -> str:
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found.group(1)


def test_every_dependency_is_explained() -> None:
    pyproject = (DOCS.parent / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", pyproject, re.MULTILINE | re.DOTALL)
    assert block is not None
    names = re.findall(r'"([A-Za-z0-9_-]+)', block.group(1))
    page = Path(DOCS / "dependencies.md").read_text(encoding="utf-8")
    assert not [name for name in names if name not in page]
