"""Our templates beside Flower's, and our entries in Flower's navigation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tornado.template import Loader, Template

FOLDER = Path(__file__).parent / "templates"
#: Where entries of Flower's navigation begin; ours come before them.
MARKER = '<ul class="app-nav navbar-nav">'


class PageLoader(Loader):
    """Finds a template in our folder, else in Flower's.

    Raises: ValueError: Flower's navigation is not as we know it.
    """

    def __init__(self, flower_folder: Path, **arguments: Any) -> None:
        super().__init__(str(flower_folder), **arguments)
        self._flower_folder = flower_folder
        self._navigation()

    def _create_template(self, name: str) -> Template:
        if name == "navbar.html":
            return Template(self._navigation(), name=name, loader=self)
        ours = FOLDER / name
        if ours.is_file():
            return Template(ours.read_text(), name=name, loader=self)
        return super()._create_template(name)

    def _navigation(self) -> str:
        source = (self._flower_folder / "navbar.html").read_text()
        if source.count(MARKER) != 1:
            raise ValueError(f"Flower's navbar.html has no single {MARKER}; this version of Flower is not supported")
        return source.replace(MARKER, MARKER + (FOLDER / "entries.html").read_text())
