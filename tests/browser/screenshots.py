"""`make screenshots`: the pictures of the documentation, docs/images/*.png, from a run of fixed rows and times.

Starts servers and a Flower of its own, and ends them. Needs Chromium (Debian: apt-get install chromium).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, ViewportSize, sync_playwright

from orchestration.store import migrate
from orchestration.store.pool import Database
from parallelizer.services.folder import prepare_folder
from parallelizer.services.postgres import EmbeddedPostgres
from parallelizer.services.valkey import EmbeddedValkey
from tests.support.fleet import running_fleet
from tests.support.flower import RunningFlower, running_flower
from tests.support.seeded_runs import seed_run

IMAGES = Path(__file__).parent.parent.parent / "docs" / "images"
RUN = "6f1d3c52-8d0e-4d1b-9c3a-2b7f5e90a411"
ITEMS, MEAN_MS = 420, 150.0
SIZE: ViewportSize = {"width": 1280, "height": 860}
#: A README is read by many: no picture is larger.
MOST_BYTES = 300_000


def main() -> int:
    """Write the pictures; returns the exit code."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.stderr.write("no Chromium; install it (Debian: apt-get install chromium)\n")
        return 3
    with tempfile.TemporaryDirectory(prefix="screenshots-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        data = prepare_folder(folder / "data")
        redis, postgres = EmbeddedValkey(data), EmbeddedPostgres(data, durable=False)
        try:
            redis.start()
            postgres.start()
            redis.wait_ready()
            postgres.wait_ready()
            url = postgres.url_of("postgres")
            migrate.upgrade(url)
            seed_run(Database(url), ITEMS, mean_ms=MEAN_MS, flow_session_id=RUN)
            with (
                running_fleet(redis.url, url, "screenshots", folder / "fleet") as fleet,
                running_flower(fleet, "basic") as flower,
                sync_playwright() as playwright,
            ):
                options = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
                browser = playwright.chromium.launch(executable_path=chromium, args=options)
                schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
                for scheme in schemes:
                    _take(browser, flower, scheme, IMAGES / f"run-{scheme}.png")
                browser.close()
        finally:
            postgres.stop()
            redis.stop()
    return 0


def _take(browser: Browser, flower: RunningFlower, scheme: Literal["light", "dark"], path: Path) -> None:
    context = browser.new_context(
        viewport=SIZE, device_scale_factor=1.5, color_scheme=scheme, locale="en-GB", timezone_id="UTC",
        http_credentials={"username": "ann@example.com", "password": "secret"},
    )  # fmt: skip
    page = context.new_page()
    page.goto(f"{flower.url}/flow/run/{RUN}")
    page.get_by_role("heading", name="Where the time went").wait_for()
    page.evaluate("document.fonts.ready")
    page.screenshot(path=path, animations="disabled")
    context.close()
    size = path.stat().st_size
    sys.stdout.write(f"{path.relative_to(IMAGES.parent.parent)}: {size // 1000} kB\n")
    assert size < MOST_BYTES, f"{path} has {size} bytes, more than {MOST_BYTES}"


if __name__ == "__main__":
    sys.exit(main())
