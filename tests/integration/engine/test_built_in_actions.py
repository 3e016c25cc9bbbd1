"""`http.request` and `python.call` as actions of workflows, with what the settings allow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.engine.test_outcomes import task_row
from tests.support.stepping import SteppingEngine
from tests.support.web import Site, Visit, serve_site


@pytest.fixture
def site() -> Iterator[Site]:
    with serve_site() as served:
        yield served


@pytest.fixture
def allowing(redis_url: str, database_url: str, namespace: str) -> Iterator[SteppingEngine]:
    """An engine whose operator allows loopback and one function."""
    engine = SteppingEngine(
        redis_url, database_url, namespace, http_allowed_networks="127.0.0.0/8", python_call_allowed="math:fsum"
    )
    yield engine
    engine.close()


def fetch(url: str, **inputs: Any) -> dict[str, Any]:
    return {"uses": "http.request", "with": {"url": url, **inputs}}


def test_a_workflow_fetches_pages_and_works_with_what_they_say(allowing: SteppingEngine, site: Site) -> None:
    site.say("/orders", {"orders": [1, 2, 3]})
    for order in (1, 2, 3):
        site.say(f"/orders/{order}", {"total": order * 10})
    definition = {
        "name": "orders",
        "actions": {
            "list": fetch(site.url("/orders")),
            "each": {
                "needs": ["list"], "for_each": "${{ tasks.list.result.body.orders }}",
                **fetch(site.url("/orders/${{ item }}"), params={"by": "${{ session.workflow }}"}),
            },
            "sum": {
                "needs": ["each"], "uses": "python.call",
                "with": {"function": "math:fsum", "args": ["${{ tasks.each.result.map(r, r.body.total) }}"]},
            },
        },
    }  # fmt: skip
    result = allowing.run(definition)
    assert result.status == "succeeded", task_row(allowing, result.flow_session_id, "list")
    assert result.output == {"sum": 60.0}
    assert {came.target for came in site.received[1:]} == {f"/orders/{order}?by=orders" for order in (1, 2, 3)}


def test_a_server_error_is_tried_again_and_a_client_error_is_not(allowing: SteppingEngine, site: Site) -> None:
    @site.page("/flaky")
    def flaky(visit: Visit) -> None:
        visit.reply(b"busy" if len(site.received) < 3 else b"ok", 503 if len(site.received) < 3 else 200)

    retry = {"max_attempts": 5, "delay_seconds": 0.01, "never_on": ["ClientErrorStatus"]}
    flow = {"name": "flaky", "actions": {"a": {**fetch(site.url("/flaky")), "retry": retry}}}
    output: Any = allowing.run(flow).output
    assert output["a"]["body"] == "ok"
    assert len(site.received) == 3

    flow = {"name": "gone", "actions": {"a": {**fetch(site.url("/gone")), "retry": retry}}}
    result = allowing.run(flow)
    assert result.status == "failed"
    error = task_row(allowing, result.flow_session_id, "a")["error"]
    assert error["type"].endswith(".ClientErrorStatus")
    assert error["message"] == f"GET {site.url('/gone')} answered 404, not a status of 2xx: no such page"
    assert len(site.received) == 4


def test_what_the_settings_do_not_allow_fails_its_task_and_says_which_setting(
    engine: SteppingEngine, site: Site
) -> None:
    actions = {"web": fetch(site.url("/")), "code": {"uses": "python.call", "with": {"function": "os:getcwd"}}}
    result = engine.run({"name": "forbidden", "actions": actions})
    assert result.counts == {"failed": 2}
    for action, setting in (("web", "HTTP_ALLOWED_NETWORKS"), ("code", "PYTHON_CALL_ALLOWED")):
        assert setting in task_row(engine, result.flow_session_id, action)["error"]["message"]
    assert site.received == []


def test_the_branch_timeout_ends_a_request(allowing: SteppingEngine, site: Site) -> None:
    hung_up = threading.Event()

    @site.page("/slow")
    def slow(visit: Visit) -> None:
        visit.rfile.read(1)
        hung_up.set()

    action = {**fetch(site.url("/slow")), "timeout_seconds": 0.3}
    result = allowing.run({"name": "slow", "actions": {"a": action}})
    assert hung_up.wait(30)
    assert result.counts == {"timed_out": 1}
    assert "0.3 s" in task_row(allowing, result.flow_session_id, "a")["error"]["message"]
