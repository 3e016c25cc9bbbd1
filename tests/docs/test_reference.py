"""The reference pages say what the program says, and the pages link to what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.reference import DOCS, PAGES


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


def test_every_dependency_is_explained() -> None:
    pyproject = (DOCS.parent / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", pyproject, re.MULTILINE | re.DOTALL)
    assert block is not None
    names = re.findall(r'"([A-Za-z0-9_-]+)', block.group(1))
    page = Path(DOCS / "dependencies.md").read_text(encoding="utf-8")
    assert not [name for name in names if name not in page]
