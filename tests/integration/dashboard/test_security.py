"""Who may see and do what in Flower, whatever it is started with."""

from __future__ import annotations

import re
import subprocess
import sys
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.fleet import Fleet
from tests.support.flower import ANN, BOB, RunningFlower, flower_program, running_flower
from tests.support.waiting import wait_until

RUN = "00000000-0000-4000-8000-000000000000"
PAGES = ("/flow", "/flow/limits", "/flow/throughput")
ANSWERS = ("/flow/api/runs", "/flow/api/workflows")
STREAMS = ("/flow/stream/runs", "/flow/stream/limits", "/flow/stream/throughput")
THEIRS = ("/workers", "/tasks", "/broker", "/api/workers", "/metrics")
ACT = {"action": "cancel", "ids": [RUN]}


def test_pages_answer_those_who_are_signed_in(flower: RunningFlower) -> None:
    client = flower.client()
    for path in PAGES:
        answer = client.get(path)
        assert answer.status_code == 200
        assert 'id="flow"' in answer.text


def test_nobody_else_gets_a_page_an_answer_or_a_stream(flower: RunningFlower) -> None:
    if flower.mode == "nobody":
        pytest.skip("everybody on this machine may look")
    strangers = [flower.client(None)]
    wrong = flower.client(None)
    wrong.headers["Authorization"] = "Basic YW5uQGV4YW1wbGUuY29tOndyb25n"
    wrong.cookies.set("user", "2|1:0|10:1790000000|4:user|4:YW5u|0000")
    strangers.append(wrong)
    for client in strangers:
        for path in PAGES:
            answer = client.get(path)
            if flower.mode == "basic":
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("Basic")
            else:
                assert answer.status_code == 302
                assert "/login?next=" in answer.headers["location"]
        for path in ANSWERS + STREAMS:
            answer = client.get(path)
            assert answer.status_code == (401 if flower.mode == "basic" else 403)
            assert set(answer.json()) == {"error"}
        assert client.post("/flow/api/act", json=ACT, headers=flower.token(client)).status_code in (401, 403)


def test_a_session_cookie_of_somebody_who_is_not_named_is_worth_nothing(flower: RunningFlower) -> None:
    if flower.mode != "oauth":
        pytest.skip("about cookies of OAuth")
    for name in ("eve@example.com", "ann@example.com.evil.test", "xann@example.com", "annXexample.com"):
        assert flower.client(name).get("/flow/api/runs").status_code == 403


def test_an_action_needs_the_token_of_a_page_of_ours(flower: RunningFlower) -> None:
    client = flower.client()
    token = flower.token(client)
    assert client.post("/flow/api/act", json=ACT).status_code == 403
    assert client.post("/flow/api/act", json=ACT, headers={"X-XSRFToken": "wrong"}).status_code == 403
    for place in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.test"}):
        assert client.post("/flow/api/act", json=ACT, headers=token | place).status_code == 403
    answer = client.post("/flow/api/act", json=ACT, headers=token | {"Sec-Fetch-Site": "same-origin"})
    if flower.mode == "nobody":
        assert answer.status_code == 403
        assert "FLOWER_BASIC_AUTH" in answer.text
    else:
        assert answer.status_code == 200
        assert answer.json()["answers"][0]["found"] == "unknown"
        wait_until(lambda: f"{ANN} asked to cancel a run" in flower.log, "the action is logged with its user")


def test_without_authentication_no_page_answers_to_a_strange_host_name(flower: RunningFlower) -> None:
    client = flower.client()
    static = re.search(r'src="([^"]*/flow/static/[^"]*)"', client.get("/flow").text)
    assert static is not None
    own = urlsplit(flower.url)
    for host in (
        "evil.test",
        f"evil.test:{own.port}",
        "127.0.0.1.evil.test",
        "localhost.evil.test",
        "[::2]",
    ):
        for path in (*PAGES, *ANSWERS, *STREAMS[:1], *THEIRS):
            if flower.mode != "nobody" and path in STREAMS:
                continue
            answer = client.get(path, headers={"Host": host})
            assert (answer.status_code == 403) == (flower.mode == "nobody"), (host, path)
    for host in ("localhost", f"localhost:{own.port}", "127.0.0.1", "[::1]:80", "LOCALHOST"):
        assert client.get("/flow", headers={"Host": host}).status_code == 200


def test_without_authentication_nothing_can_be_changed_on_flowers_pages_neither(flower: RunningFlower) -> None:
    if flower.mode != "nobody":
        pytest.skip("about Flower without authentication")
    client = flower.client()
    token = flower.token(client)
    for path in ("/api/worker/shutdown/w", "/api/task/revoke/x", "/api/task/async-apply/tasks.run_workflow", "/flow"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            answer = client.request(method, path, headers=token)
            assert answer.status_code == 403
            assert "read-only" in answer.text


def test_our_pages_have_a_strict_policy_and_all_pages_refuse_frames(flower: RunningFlower) -> None:
    client = flower.client()
    for path in PAGES + ANSWERS:
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["cache-control"] == "no-store"
    for path in PAGES + ANSWERS + THEIRS:
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"


def test_no_other_origin_may_read_our_answers(flower: RunningFlower) -> None:
    client = flower.client()
    for path in PAGES + ANSWERS:
        assert "access-control-allow-origin" not in client.get(path, headers={"Origin": "http://evil.test"}).headers


def test_pages_have_no_script_and_no_style_of_their_own_in_them(flower: RunningFlower) -> None:
    page = flower.client().get("/flow").text
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"<[^>]*\s(style|on\w+)\s*=", page)


def test_flowers_own_pages_lead_to_ours(flower: RunningFlower) -> None:
    prefix = urlsplit(flower.url).path
    for path in ("/workers", "/broker", "/flow"):
        page = flower.client().get(path).text
        for target in PAGES:
            assert f'href="{prefix}{target}"' in page


def test_streams_tell_the_state_at_once_and_are_not_compressed(flower: RunningFlower) -> None:
    client = flower.client()
    assert flower.first_event(client, "/flow/stream/limits", "limits")["limits"][0]["name"] == "global"
    assert flower.first_event(client, "/flow/stream/throughput", "throughput", span=3600)["points"] == []
    assert flower.first_event(client, "/flow/stream/runs", "runs")["runs"] == []
    with client.stream("GET", "/flow/stream/limits", headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "identity"
        assert answer.headers["cache-control"] == "no-store"


def test_files_may_be_kept_and_nothing_outside_their_folder_is_to_be_had(flower: RunningFlower) -> None:
    client = flower.client()
    found = re.search(r'src="([^"]*/flow/static/)([0-9a-f]+)/runs.js"', client.get("/flow").text)
    assert found is not None
    base = f"/flow/static/{found[2]}"
    answer = client.get(f"{base}/lib.js")
    assert answer.status_code == 200
    assert "javascript" in answer.headers["content-type"]
    assert "max-age=31536000" in answer.headers["cache-control"]
    for path in ("../handlers.py", "..%2fhandlers.py", "%2e%2e/handlers.py", "vendor/../../handlers.py", "/etc/passwd"):
        assert client.get(f"{base}/{path}").status_code in (403, 404)


def test_wrong_questions_are_answered_in_words(flower: RunningFlower) -> None:
    client = flower.client()
    for query in ({"status": "<b>"}, {"since": "yesterday"}, {"before": "x,y"}, {"until": "9" * 40}):
        answer = client.get("/flow/api/runs", params=query)
        assert answer.status_code == 400, query
        assert answer.json()["error"]
    assert client.get("/flow/stream/throughput", params={"span": 7}).status_code == 400
    assert (
        client.get("/flow/api/runs", params={"search": "\x00'; DROP TABLE tasks --", "workflow": "é\ud7ff%"}).json()[
            "runs"
        ]
        == []
    )
    if flower.mode != "nobody":
        token = flower.token(client)
        for body in (
            b"x",
            b"[]",
            b'{"action": "drop", "ids": ["%s"]}' % RUN.encode(),
            b'{"action": "cancel", "ids": ["../x"]}',
        ):
            assert client.post("/flow/api/act", content=body, headers=token).status_code == 400


def test_it_listens_on_this_machine_only_unless_people_sign_in(flower: RunningFlower) -> None:
    assert flower.program.process is not None
    process = psutil.Process(flower.program.process.pid)
    listening = {one.laddr.ip for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
    assert (listening == {"127.0.0.1"}) == (flower.mode == "nobody")
    assert ("no authentication is configured" in flower.log) == (flower.mode == "nobody")


def test_without_authentication_it_does_not_start_on_another_address(fleet: Fleet) -> None:
    program = flower_program(fleet, "--address=0.0.0.0")
    program.start()
    wait_until(program.has_exited, "Flower has ended")
    assert program.process is not None
    assert program.process.returncode == 1
    assert "FLOWER_BASIC_AUTH=user:password" in program.log.read_text()
    program.sweep()


def test_read_only_holds_for_our_pages_too(fleet: Fleet) -> None:
    with running_flower(fleet, "basic", "", "--read_only") as flower:
        client = flower.client()
        answer = client.post("/flow/api/act", json=ACT, headers=flower.token(client))
        assert answer.status_code == 403
        assert "--read_only" in answer.json()["error"]
        assert "--read_only" in client.get("/flow").text


@pytest.mark.parametrize("mode", ["basic", "oauth"])
def test_where_operators_are_named_others_may_look_only(mode: str, fleet: Fleet) -> None:
    with running_flower(fleet, mode, DASHBOARD_OPERATORS=ANN) as flower:
        ann, bob = flower.client(ANN), flower.client(BOB)
        assert bob.get("/flow").status_code == 200
        assert "read-only for bob@example.com" in bob.get("/flow").text
        assert ann.post("/flow/api/act", json=ACT, headers=flower.token(ann)).status_code == 200
        for path in ("/flow/api/act", "/api/worker/shutdown/w"):
            answer = bob.post(path, json=ACT, headers=flower.token(bob))
            assert answer.status_code == 403
            assert "read-only for bob@example.com" in answer.text


def test_flower_keeps_few_tasks_and_asks_for_no_events_unless_told_to() -> None:
    script = """
import os, sys, click, flower.command
context = click.Context(click.Group("celery"))
context.invoked_subcommand = sys.argv[1]
with context:
    import tasks
found = [os.environ.get("FLOWER_MAX_TASKS"), os.environ.get("FLOWER_ENABLE_EVENTS")]
print(*found, "tasks.dashboard.application" in sys.modules)
"""

    def said(command: str, **environment: str) -> str:
        every = {"PATH": "", "REDIS_URL": "redis://nowhere.invalid", "DATABASE_URL": "postgresql://nowhere.invalid/x"}
        done = subprocess.run(
            [sys.executable, "-c", script, command], env=every | environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert said("flower") == "5000 false False"
    assert said("flower", FLOWER_MAX_TASKS="7", FLOWER_ENABLE_EVENTS="true") == "7 true False"
    assert said("worker") == "None None False"
