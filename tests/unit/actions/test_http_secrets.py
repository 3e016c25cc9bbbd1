"""What `http.request` sends is found in no error and in no log."""

from __future__ import annotations

import json
import logging
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.engine.invoke import describe_error
from parallelizer.actions.http.errors import (
    HttpError,
    RequestRefused,
)
from parallelizer.actions.http.sent import MOST_SHOWN, Sent
from tests.support.http_calls import call
from tests.support.web import Site, Visit, hold_until

CANARY = "canary-7f3a9/é+ü"
PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "authorization": lambda url: {"url": url, "headers": {"Authorization": f"Bearer {CANARY}"}},
    "another header": lambda url: {"url": url, "headers": {"X-Api-Key": CANARY}},
    "cookie": lambda url: {"url": url, "headers": {"Cookie": f"a=1; session={CANARY}"}},
    "query": lambda url: {"url": f"{url}?token=canary-7f3a9/%C3%A9%2b%c3%bc&q=1"},
    "params": lambda url: {"url": url, "params": {"token": CANARY, "many": ["1", CANARY]}},
    "user": lambda url: {"url": url.replace("://", "://canary-7f3a9%2F%C3%A9%2B%C3%BC@")},
    "password": lambda url: {"url": url.replace("://", "://me:canary-7f3a9%2F%C3%A9%2B%C3%BC@")},
    "json": lambda url: {"url": url, "method": "POST", "json": {"login": {"password": CANARY}}},
    "form": lambda url: {
        "url": url,
        "method": "POST",
        "body": "grant=password&secret=canary-7f3a9%2F%C3%A9%2B%C3%BC",
        "headers": {"Content-Type": "application/x-www-form-urlencoded"},
    },
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("page", ["/echo", "/nonsense", "/silent", "/large", "/redirect", "/broken"])
def test_secrets_are_in_no_error_and_no_log(
    site: Site, place: str, page: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong, with a server that repeats all it was sent."""
    ended = threading.Event()

    @site.page("/echo")
    def echo(visit: Visit) -> None:
        came = visit.received
        words = " ".join(f"{name}: {value}" for name, value in came.headers.items())
        kind, _, token = came.headers.get("authorization", "").partition(" ")
        decoded = b64decode(token) if kind == "Basic" else b""
        visit.reply(f"{came.target} {words} {came.body.decode()} {decoded.decode('utf-8', 'replace')}".encode(), 400)

    @site.page("/nonsense")
    def nonsense(visit: Visit) -> None:
        visit.wfile.write(f"{visit.received.target} {visit.received.headers}\r\n\r\n".encode())
        visit.close_connection = True

    site.pages["/silent"] = hold_until(ended)
    site.say("/large", b"x" * 1000)
    site.say("/redirect", b"", 302, location=f"http://10.0.0.1/?token={b64encode(b'x').decode()}")
    site.say("/broken", b"{", content_type="application/json")
    caplog.set_level(logging.DEBUG)
    inputs = PLACES[place](site.url(page))
    try:
        with pytest.raises(HttpError) as caught:
            call(**inputs, max_bytes=100, timeout_seconds=0.3 if page == "/silent" else 30)
    finally:
        ended.set()
    described = json.dumps(describe_error(caught.value, 1), ensure_ascii=False)
    shown = described + caplog.text
    token = b64encode(f"me:{CANARY}".encode()).decode()
    for hidden in ("canary", "7f3a9", CANARY, token, token[:12]):
        assert hidden not in shown
    if page == "/echo":
        assert "answered 400" in described
        assert "***" in described
    assert site.received


@pytest.mark.parametrize(
    "url",
    ["http://me:canary/@127.0.0.1/", "http://me:canary@", "http://127.0.0.1:canary/", "http://[canary]/",
     "me:canary@127.0.0.1/", "http://me:can\nary@127.0.0.1", "http://127.0.0.1/?canary=\r\n",
     "http://me:canary@ex ample/"],
)  # fmt: skip
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(HttpError) as caught:
        call(url)
    assert "canary" not in json.dumps(describe_error(caught.value, 1))


def test_credentials_in_the_url_become_a_header(site: Site) -> None:
    site.say("/", b"", 302, location="/next")
    site.say("/next", b"")
    reply = call(site.url().replace("://", "://m%40e:p%3Aw@"))
    for came in site.received:
        scheme, _, token = came.headers["authorization"].partition(" ")
        assert (scheme, b64decode(token)) == ("Basic", b"m@e:p:w")
    assert reply["url"] == site.url("/next")
    with pytest.raises(RequestRefused, match="both"):
        call(site.url().replace("://", "://m:p@"), headers={"Authorization": "x"})


@given(
    secrets=st.lists(st.text(min_size=8, max_size=20), min_size=1, max_size=4),
    around=st.lists(st.text(max_size=120), min_size=5, max_size=5),
)
def test_what_was_sent_is_struck_out_of_any_text(secrets: list[str], around: list[str]) -> None:
    sent = Sent()
    for secret in secrets:
        sent.add(secret)
    text = "".join(part for pair in zip(around, [*secrets, *secrets], strict=False) for part in pair)
    shown = sent.hide(text)
    assert len(shown) <= MOST_SHOWN + 3 * len(around)
    assert not [secret for secret in secrets if secret in shown and "***" not in secret]
