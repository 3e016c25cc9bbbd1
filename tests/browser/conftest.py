"""One stack for all tests here: services, a worker, Flower, and Chromium, whose pages must cause no error.

Starting it takes longer than most tests do. Runs and names of a test are its own, so tests don't meet each other.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from orchestration.store.pool import Database
from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet, running_fleet
from tests.support.flower import ANN, RunningFlower, running_flower
from tests.support.servers import DatabaseServer

AXE = Path(__file__).parent.parent / "data" / "axe" / "axe.min.js"
#: What axe-core is asked for: the rules of WCAG 2.2, levels A and AA.
RULES = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]
#: How long a page may take to show what is expected, ms: on a busy machine Flower alone takes seconds.
expect.set_options(timeout=60_000)
#: Of the worker.
SLOTS = 4
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "reduced_motion": "reduce",
}  # fmt: skip
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
_REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  reportViolation(`${event.violatedDirective} ${event.blockedURI}`));
"""


@pytest.fixture(scope="package")
def database_url(database_server: DatabaseServer, migrated_template: str) -> Iterator[str]:
    name = f"b_{uuid.uuid4().hex[:12]}"
    yield database_server.create(name, migrated_template)
    database_server.drop(name)


@pytest.fixture(scope="package")
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as database:
        yield database


@pytest.fixture(scope="package")
def fleet(redis_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A worker with SLOTS slots."""
    namespace = f"b{uuid.uuid4().hex[:12]}"
    with running_fleet(redis_url, database_url, namespace, tmp_path_factory.mktemp("fleet")) as started:
        started.start(1, concurrency=SLOTS, ACTION_MODULES="tests.support.journal", INLINE_FORK_MS="0")
        yield started


@pytest.fixture(scope="package")
def client(fleet: Fleet) -> Iterator[Client]:
    with running_client(fleet) as client:
        yield client


@pytest.fixture(scope="package")
def flower(fleet: Fleet) -> Iterator[RunningFlower]:
    """Flower with basic authentication, behind a prefix."""
    with running_flower(fleet, "basic", "monitor") as running:
        yield running


@pytest.fixture(scope="package")
def open_flower(fleet: Fleet) -> Iterator[RunningFlower]:
    """Flower without authentication."""
    with running_flower(fleet, "nobody") as running:
        yield running


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, without a window. While it is there, no other test may run an event loop."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium; install it (Debian: apt-get install chromium) to test the pages in a browser")
    options = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=options)
        yield started
        started.close()


@dataclass
class Visitor:
    """Opens pages as a user, and notes what goes wrong in them."""

    browser: Browser
    wrong: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def open(self, flower: RunningFlower, path: str, *, user: str = ANN, dark: bool = False, **options: Any) -> Page:
        """A page of Flower's, in a browser of its own."""
        if flower.mode == "basic":
            options["http_credentials"] = {"username": user, "password": "secret"}
        context = self.browser.new_context(color_scheme="dark" if dark else "light", **options)
        self.contexts.append(context)
        context.expose_binding("reportViolation", lambda _, what: self.wrong.append(f"policy: {what}"))
        context.add_init_script(_REPORT_VIOLATIONS)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda said: self.wrong.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.goto(flower.url + path)
        return page


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """Opens pages; the test fails if anything was wrong in one of them."""
    visitor = Visitor(browser)
    yield visitor
    for context in visitor.contexts:
        context.close()
    assert visitor.wrong == []


def findings_of(page: Page) -> list[str]:
    """What keeps people from using the page, serious or critical."""
    page.evaluate(AXE.read_text())
    found = page.evaluate(
        "(rules) => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", RULES
    )["violations"]  # fmt: skip
    return [
        f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
