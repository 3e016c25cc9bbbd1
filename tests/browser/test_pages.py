"""Workflows, limits and throughput in a real browser, over a real Flower, real services and a real worker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest
from playwright.sync_api import Page, expect

from orchestration.state.live import LiveState
from orchestration.store import sessions, updates
from orchestration.store.pool import Database
from orchestration.store.samples import Gauges, add_sample, read_samples
from orchestration.vocabulary import RunStatus
from tests.browser.conftest import DESK, PHONE, SLOTS, Visitor, findings_of
from tests.integration.store.rows import new_session, task
from tests.support.clients import Client
from tests.support.fleet import Fleet
from tests.support.flower import RunningFlower
from tests.support.journal import read_journal
from tests.support.waiting import wait_until

PAGES = ("/flow", "/flow/limits", "/flow/throughput")
EVIL = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>{{7*7}}"
OLD = 60


@pytest.fixture(scope="module", autouse=True)
def old_runs(database: Database) -> None:
    """Runs that have ended: more than a page of one workflow, and some that failed."""
    for number in range(OLD):
        run = new_session(database, "old")
        status = RunStatus.FAILED if number % 20 == 0 else RunStatus.SUCCEEDED
        counts = {"succeeded": 3, **({"failed": 1} if status is RunStatus.FAILED else {})}
        sessions.finish_session(database, run.flow_session_id, run.session_day, status, counts=counts)
    run = new_session(database, EVIL)
    sessions.finish_session(
        database, run.flow_session_id, run.session_day, RunStatus.CANCELLED, error='{"message": "x"}'
    )


@pytest.fixture
def live(fleet: Fleet) -> Iterator[LiveState]:
    with closing(LiveState(fleet.redis_url, fleet.namespace)) as live:
        yield live


class Held:
    """Runs whose two items run until they are let go."""

    def __init__(self, client: Client, journal: Path, folder: Path) -> None:
        self._client, self._journal, self._folder = client, journal, folder
        self.begun = 0

    def begin(self, name: str) -> str:
        inputs = {"journal": str(self._journal), "folder": str(self._folder), "seconds": 200}
        each = {"uses": "test.hold", "with": inputs, "needs": ["start"], "for_each": {"range": 2}}
        actions = {"start": {"uses": "core.noop"}, "each": each}
        workflow = {"name": name, "limits": {"max_concurrent_branches": 1}, "actions": actions}
        session: str = self._client.run("result = send(workflow).delay().id", workflow=workflow)
        self.begun += 1
        wait_until(lambda: self.started() >= self.begun, "it runs")
        return session

    def started(self) -> int:
        return sum(kind == "start" for kind, *_ in read_journal(self._journal))

    def let_go(self) -> None:
        for attempt in (1, 2, 3):
            for item in (0, 1):
                (self._folder / f"each:{item}.{attempt}").touch()


@pytest.fixture
def held(client: Client, journal: Path, tmp_path: Path, live: LiveState) -> Iterator[Held]:
    held = Held(client, journal, tmp_path)
    yield held
    held.let_go()
    wait_until(lambda: not live.open_sessions(), "all runs have ended")


def rows(page: Page) -> Any:
    return page.locator(".flow-runs tbody tr")


def chip(page: Page, status: str) -> Any:
    return page.get_by_role("group", name="Statuses").get_by_role("button", name=status)


def test_runs_are_listed_by_page_and_filtered_by_what_the_url_says(visitor: Visitor, flower: RunningFlower) -> None:
    page = visitor.open(flower, "/flow?workflow=old")
    expect(rows(page)).to_have_count(50)
    page.get_by_role("button", name="Older").click()
    expect(rows(page)).to_have_count(OLD - 50)
    expect(page).to_have_url(re.compile("before="))
    page.get_by_role("button", name="Newest").click()
    expect(rows(page)).to_have_count(50)
    expect(chip(page, "failed")).to_contain_text("3")
    chip(page, "failed").click()
    expect(page).to_have_url(re.compile("status=failed"))
    expect(rows(page)).to_have_count(3)
    expect(rows(page).first).to_contain_text("1 failed of 4")
    page.reload()
    expect(rows(page)).to_have_count(3)
    page.go_back()
    expect(rows(page)).to_have_count(50)
    run = rows(page).nth(7).get_by_role("link").get_attribute("title")
    assert run is not None
    page.goto(flower.url + "/flow")
    page.get_by_label("Search by id").fill(run[:13])
    page.get_by_label("Search by id").press("Enter")
    expect(rows(page)).to_have_count(1)
    expect(rows(page).get_by_role("link")).to_have_attribute("href", f"/monitor/flow/run/{run}")
    page.get_by_label("Search by id").fill("nothing like this")
    page.get_by_label("Search by id").press("Enter")
    expect(page.get_by_text("No run is like that.")).to_be_visible()
    page.get_by_role("button", name="Show all runs").click()
    expect(rows(page)).to_have_count(50)


def test_filters_are_written_chosen_and_cleared(visitor: Visitor, flower: RunningFlower) -> None:
    page = visitor.open(flower, "/flow")
    page.get_by_label("Workflow", exact=True).fill("old")
    page.get_by_label("Workflow", exact=True).press("Enter")
    expect(page).to_have_url(re.compile("workflow=old"))
    expect(rows(page)).to_have_count(50)
    page.get_by_label("Started").select_option(label="Last hour")
    expect(page).to_have_url(re.compile("last=3600"))
    expect(rows(page)).to_have_count(50)
    chip(page, "failed").click()
    expect(rows(page)).to_have_count(3)
    chip(page, "cancelled").click()
    expect(page).to_have_url(re.compile("status=failed&status=cancelled"))
    expect(rows(page)).to_have_count(3)
    expect(chip(page, "failed")).to_have_attribute("aria-pressed", "true")
    chip(page, "failed").click()
    expect(page.get_by_text("No run is like that.")).to_be_visible()
    assert findings_of(page) == []
    page.get_by_role("button", name="Clear").click()
    expect(page).to_have_url(re.compile("/monitor/flow$"))
    expect(rows(page)).to_have_count(50)


def test_new_runs_are_told_of_and_shown_when_asked_for(
    visitor: Visitor, flower: RunningFlower, database: Database
) -> None:
    page = visitor.open(flower, "/flow?workflow=newer")
    expect(page.get_by_text("No run is like that.")).to_be_visible()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    for _ in range(2):
        run = new_session(database, "newer")
        sessions.finish_session(database, run.flow_session_id, run.session_day, RunStatus.SUCCEEDED)
    expect(page.get_by_role("button", name="2 new – show")).to_be_visible()
    expect(rows(page)).to_have_count(0)
    page.get_by_role("button", name="2 new – show").click()
    expect(rows(page)).to_have_count(2)
    expect(page.get_by_role("button", name="new – show")).to_have_count(0)


def test_a_run_is_paused_resumed_and_cancelled_after_a_question(
    visitor: Visitor, flower: RunningFlower, held: Held
) -> None:
    session = held.begin("acted")
    page = visitor.open(flower, "/flow?workflow=acted")
    row = rows(page).first
    expect(row).to_contain_text("running")
    page.get_by_role("button", name=f"Pause run {session}").click()
    page.get_by_role("dialog").get_by_role("button", name="Back").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(row).to_contain_text("running")
    page.get_by_role("button", name=f"Pause run {session}").click()
    expect(page.get_by_role("dialog")).to_contain_text("Pause this run of acted?")
    assert findings_of(page) == []
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(row).to_contain_text("paused")
    page.get_by_role("button", name=f"Resume run {session}").click()
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    expect(row).to_contain_text("running")
    page.get_by_role("button", name=f"Cancel run {session}").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel", exact=True).click()
    expect(row).to_contain_text("cancelled")
    wait_until(lambda: "ann@example.com asked to cancel a run" in flower.log, "it is logged")


def test_several_runs_are_cancelled_at_once_and_the_question_says_how_many(
    visitor: Visitor, flower: RunningFlower, held: Held
) -> None:
    for _ in range(2):
        held.begin("several")
    page = visitor.open(flower, "/flow?workflow=several")
    expect(rows(page)).to_have_count(2)
    page.get_by_label("Select all on this page").check()
    page.get_by_role("toolbar").get_by_role("button", name="Cancel 2").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Cancel 2 runs?")
    dialog.get_by_role("button", name="Cancel 2 runs").click()
    expect(rows(page).nth(0)).to_contain_text("cancelled")
    expect(rows(page).nth(1)).to_contain_text("cancelled")


def test_a_run_that_ends_is_shown_so_without_a_reload(visitor: Visitor, flower: RunningFlower, held: Held) -> None:
    held.begin("ending")
    page = visitor.open(flower, "/flow?workflow=ending")
    row = rows(page).first
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("1 branch is ready and waits for its own limit of 1 at once")
    took, search = row.locator('[data-label="took"]'), page.get_by_label("Search by id")
    search.fill("half of an i")
    expect(took).not_to_have_text(took.inner_text())
    expect(search).to_have_value("half of an i")  # what is being written outlives what changes on the page
    held.let_go()
    expect(row).to_contain_text("succeeded")
    expect(row.get_by_role("img")).to_have_attribute("aria-label", re.compile("succeeded"))


def test_limits_show_who_holds_and_who_waits_and_change_by_themselves(
    visitor: Visitor, flower: RunningFlower, held: Held, live: LiveState
) -> None:
    live.set_limit("workflow:limited", 1)
    first = held.begin("limited")
    page = visitor.open(flower, "/flow/limits")
    row = page.locator("tr", has_text="workflow:limited").first
    expect(row).to_contain_text("1 of 1")
    page.get_by_role("button", name="workflow:limited").click()
    detail = page.locator(".flow-detail")
    expect(detail.locator(f'a[href="/monitor/flow/run/{first}"]')).to_be_visible()
    expect(detail).to_contain_text("worker-1")
    expect(page).to_have_url(re.compile("open=workflow"))
    expect(page.locator("tr", has_text="branches").last).to_contain_text(f"of {SLOTS}")
    held.let_go()
    expect(row).to_contain_text("0 of 1")
    expect(detail).to_contain_text("Nobody waits.")
    live.set_limit("workflow:limited", 0)
    expect(page.get_by_role("button", name="workflow:limited")).to_have_count(0)


def test_throughput_shows_the_samples_of_the_last_day(
    visitor: Visitor, flower: RunningFlower, fleet: Fleet, database: Database
) -> None:
    wait_until(lambda: bool(read_samples(database, fleet.namespace, 3600)), "the worker has made a sample")
    for permits in (1, 2):
        add_sample(database, fleet.namespace, Gauges(permits, 2, 1, 0, 0, 0.0))
    page = visitor.open(flower, "/flow/throughput")
    expect(page.get_by_text("Branches per second").first).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^Permits in use: in use from"))).to_be_visible()
    add_sample(database, fleet.namespace, Gauges(4321, 2, 1, 0, 0, 0.0))
    expect(page.get_by_role("img", name=re.compile("^Permits in use: in use from .* to 4.3K"))).to_be_visible()
    page.get_by_role("button", name="24 hours").click()
    expect(page).to_have_url(re.compile("span=86400"))
    expect(page.get_by_role("button", name="24 hours")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("heading", name="Repaired since the start")).to_be_visible()


def test_a_hidden_page_lets_go_of_its_stream_and_takes_it_up_when_it_is_seen(
    visitor: Visitor, flower: RunningFlower
) -> None:
    page = visitor.open(flower, "/flow/limits")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    change = """(hidden) => {
        Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    with page.expect_event("requestfailed", lambda request: "/flow/stream/limits" in request.url):
        page.evaluate(change, True)
    expect(page.get_by_text("Live", exact=True)).to_have_count(0)
    with page.expect_request(lambda request: "/flow/stream/limits" in request.url):
        page.evaluate(change, False)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()


def test_flower_stays_small(visitor: Visitor, flower: RunningFlower) -> None:
    page = visitor.open(flower, PAGES[0])
    for path in PAGES:
        page.goto(flower.url + path)
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
    assert flower.program.process is not None
    assert psutil.Process(flower.program.process.pid).memory_info().rss < 200_000_000


def test_without_authentication_nothing_can_be_done_and_the_page_says_so(
    visitor: Visitor, open_flower: RunningFlower
) -> None:
    page = visitor.open(open_flower, "/flow")
    expect(rows(page).first).to_be_visible()
    expect(page.get_by_text("read-only: no authentication is configured")).to_be_visible()
    expect(page.get_by_role("checkbox")).to_have_count(0)
    expect(page.locator(".flow-act")).to_have_count(0)


def test_all_can_be_done_by_keyboard(visitor: Visitor, flower: RunningFlower) -> None:
    page = visitor.open(flower, "/flow?workflow=old")
    expect(rows(page)).to_have_count(50)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("j")
    expect(rows(page).nth(1)).to_have_class(re.compile("has-focus"))
    page.keyboard.press("x")
    expect(page.get_by_text("1 selected")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("open the run")
    page.keyboard.press("j")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(rows(page).nth(1)).to_have_class(re.compile("has-focus"))
    page.keyboard.press("/")
    expect(page.get_by_label("Search by id")).to_be_focused()
    page.keyboard.type("j")
    expect(rows(page).nth(1)).to_have_class(re.compile("has-focus"))
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page).to_have_url(re.compile("/monitor/flow/limits$"))
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("t")
    expect(page).to_have_url(re.compile("/monitor/flow/throughput$"))
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("w")
    expect(page).to_have_url(re.compile("/monitor/flow$"))


def test_what_users_wrote_is_shown_as_text_and_runs_nowhere(
    visitor: Visitor, flower: RunningFlower, live: LiveState
) -> None:
    live.set_limit(f"key:{EVIL}", 3)
    page = visitor.open(flower, "/flow?status=cancelled")
    expect(page.locator(".flow-name", has_text=EVIL).first).to_be_visible()
    assert page.locator("#flow img, #flow script").count() == 0
    page.goto(
        f"{flower.url}/flow?workflow=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&search=%22%3E%3Cscript%3Ealert(3)%3C/script%3E&before=%22%3E"
    )
    expect(page.get_by_role("alert").first).to_contain_text("times are whole numbers")
    assert page.get_by_label("Workflow", exact=True).input_value() == "<img src=x onerror=alert(1)>"
    visitor.wrong[:] = [one for one in visitor.wrong if "400 (Bad Request)" not in one]
    page.goto(flower.url + "/flow/limits")
    page.get_by_role("button", name=f"key:{EVIL}").click()
    expect(page.get_by_text("Nobody waits.")).to_be_visible()
    assert page.locator("#flow img, #flow script").count() == 0
    live.set_limit(f"key:{EVIL}", 0)


def test_names_of_workers_queues_and_rates_are_texts_too(
    visitor: Visitor, flower: RunningFlower, live: LiveState
) -> None:
    worker = f"{EVIL}#1"
    live.beat_worker(worker, [EVIL], 3, 600_000_000)
    for token in ("one", "two"):
        live.take_rate(token, [(EVIL, 600_000_000, 1)])
    page = visitor.open(flower, f"/flow/limits?{urlencode({'open': EVIL})}")
    row = page.locator("tr", has_text=EVIL)
    expect(row.filter(has_text="0 of 3").get_by_title(f"{worker}: 3")).to_be_visible()
    expect(row.filter(has_text=re.compile("in 1?[0-9] min"))).to_be_visible()
    assert page.locator("#flow img, #flow script").count() == 0
    live.stop_worker(worker)
    expect(row.filter(has_text="0 of 3")).to_have_count(0)
    page.goto(f"{flower.url}/flow/throughput?{urlencode({'span': EVIL})}")
    expect(page.get_by_text("Branches per second").first).to_be_visible()
    assert page.locator("#flow img, #flow script").count() == 0


@pytest.mark.parametrize("size", ["phone", "desk"])
def test_a_long_name_makes_no_page_wider(
    visitor: Visitor, flower: RunningFlower, database: Database, live: LiveState, size: str
) -> None:
    long = "n" * 200
    run = new_session(database, f"{long}-{size}", {long: {"uses": long, "queue": long}})
    rows_of = task(run.flow_session_id, long, day=str(run.session_day), queue=long, result=f'"{long}"', status="failed",
                   error=f'{{"type": "{long}", "message": "{long}"}}')._replace(worker=long)  # fmt: skip
    updates.write_rows(database, [rows_of])
    live.set_limit(f"key:{long}", 3)
    sessions.finish_session(database, run.flow_session_id, run.session_day, RunStatus.FAILED, counts={"failed": 1})
    page = visitor.open(flower, "/flow/throughput", **(PHONE if size == "phone" else DESK))
    for path in (f"/flow?workflow={long}-{size}", f"/flow/run/{run.flow_session_id}?action={long}",
                 f"/flow/limits?open=key:{long}"):  # fmt: skip
        page.goto(flower.url + path)
        expect(page.get_by_text(long).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"
    live.set_limit(f"key:{long}", 0)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", ["phone", "desk"])
def test_pages_are_usable_by_all_on_any_screen(
    visitor: Visitor, flower: RunningFlower, held: Held, size: str, dark: bool
) -> None:
    held.begin("seen")
    page = visitor.open(flower, "/flow?workflow=seen", dark=dark, **(PHONE if size == "phone" else DESK))
    expect(rows(page)).not_to_have_count(0)
    for path in (*PAGES, "/flow/limits?open=global"):
        page.goto(flower.url + path)
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        expect(page.locator(".flow-card").first).to_be_visible()
        assert page.evaluate("document.documentElement.dataset.bsTheme") == ("dark" if dark else "light")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"
        assert findings_of(page) == [], path
