"""The built-in `http.request`, against a real server on loopback: what is sent, what comes back, redirects."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from orchestration.registry import find_action, load_actions
from parallelizer.actions.http.errors import (
    AddressRefused,
    ClientErrorStatus,
    HttpError,
    ReplyUnreadable,
    RequestRefused,
    ServerErrorStatus,
    TooManyRedirects,
    UnexpectedStatus,
)
from tests.support.http_calls import Names, call
from tests.support.web import Site, serve_site


def test_it_is_found_through_its_entry_point_and_is_async() -> None:
    load_actions(())
    spec = find_action("http.request")
    assert spec.is_async
    assert spec.takes_context


def test_a_reply_has_status_headers_and_parsed_json(site: Site) -> None:
    site.say("/orders", {"total": 7}, x_kind="Order")
    reply = call(site.url("/orders?page=2"))
    assert reply["headers"].pop("date")
    assert reply == {
        "status": 200,
        "url": site.url("/orders"),
        "headers": {
            "server": reply["headers"]["server"],
            "content-type": "application/json",
            "content-length": "12",
            "x-kind": "Order",
        },
        "body": {"total": 7},
        "base64": False,
        "bytes": 12,
    }
    assert site.received[0].target == "/orders?page=2"


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b'{"a": [1, null]}', "application/problem+json; charset=utf-8", {"a": [1, None]}),
        ("\ufeff[1]".encode(), "application/json", [1]),
        (b" \n", "application/json", None),
        ("héllo".encode(), "text/plain", "héllo"),
        ("héllo".encode("latin-1"), 'text/html; charset="ISO-8859-1"', "héllo"),
        (b"", "", ""),
        (b"plain", "text/plain; charset=no-such", None),
        (b"xn--maana-pta", "text/plain; charset=idna", "xn--maana-pta"),
        (b"a\x00b", "text/plain", None),
        (b"\x89PNG\r\n\xff", "image/png", None),
        (b"\x78\x9c", "text/plain; charset=zlib", None),
    ],
)  # fmt: skip
def test_a_body_is_json_text_or_base64(site: Site, body: bytes, content_type: str, expected: object) -> None:
    site.say("/", body, content_type=content_type)
    reply = call(site.url())
    if expected is None and body.strip():
        assert reply["base64"] is True
        assert b64decode(reply["body"]) == body
    else:
        assert (reply["body"], reply["base64"]) == (expected, False)


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff", b"1" * 10_000])
def test_a_body_that_says_json_and_is_none_is_refused_without_being_repeated(site: Site, body: bytes) -> None:
    site.say("/", body, content_type="application/json")
    with pytest.raises(ReplyUnreadable, match="application/json") as caught:
        call(site.url())
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_is_sent(site: Site, method: str) -> None:
    site.say("/", b"x" * 2000)
    reply = call(site.url(), method=method, max_bytes=3000 if method != "HEAD" else 10)
    assert site.received[0].method == method
    assert reply["bytes"] == (0 if method == "HEAD" else 2000)


def test_json_text_headers_and_parameters_are_sent(site: Site) -> None:
    site.say("/", b"")
    call(site.url("/?a=1"), method="POST", json={"é": [1.5, None]}, params={"b": ["x y", 2], "c": True, "d": None})
    call(site.url(), method="PUT", body="é", headers={"X-Count": 3, "content-type": "text/csv"})
    first, second = site.received
    assert first.target == "/?a=1&b=x+y&b=2&c=true&d="
    assert (first.headers["content-type"], json.loads(first.body)) == ("application/json", {"é": [1.5, None]})
    assert (second.headers["content-type"], second.headers["x-count"]) == ("text/csv", "3")
    assert second.body == "é".encode()


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"method": "TRACE"}, "method must be one of"),
        ({"method": "GET / HTTP/1.1\r\nX: y"}, "method must be one of"),
        ({"json": 1, "body": "1"}, "one body"),
        ({"json": float("nan")}, "json can't be written"),
        ({"json": "\ud800"}, "json can't be written"),
        ({"json": {"a": object()}}, "json can't be written"),
        ({"body": {"a": 1}}, "body must be text"),
        ({"body": "\ud800"}, "not Unicode"),
        ({"params": {"a": {"b": 1}}}, "params.a"),
        ({"params": {"a": "\ud800"}}, "not Unicode"),
        ({"params": [1]}, "params must be an object"),
        ({"headers": "X: y"}, "headers must be an object"),
        ({"headers": {"Bad Name": "x"}}, "no name of a header"),
        ({"headers": {"X": "a\r\nY: b"}}, "without line breaks"),
        ({"headers": {"X": "ключ"}}, "Latin-1"),
        ({"headers": {"X": None}}, "must be text"),
        ({"headers": {"X": "1", "x": "2"}}, "given twice"),
        ({"headers": {"Host": "other"}}, "set by http.request itself"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "set by http.request itself"),
        ({"headers": {"Proxy-Authorization": "x"}}, "set by http.request itself"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": "1"}, "timeout_seconds"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"max_bytes": 10**12}, "max_bytes"),
        ({"ok": []}, "ok must be a list"),
        ({"ok": 200}, "ok must be a list"),
        ({"ok": "200"}, "ok must be a list"),
    ],
)
def test_wrong_inputs_are_named_before_anything_is_sent(site: Site, inputs: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestRefused, match=reason):
        call(site.url(), **inputs)
    assert site.received == []


# Statuses


@pytest.mark.parametrize(
    ("status", "kind"), [(404, ClientErrorStatus), (503, ServerErrorStatus), (304, UnexpectedStatus)]
)
def test_an_unexpected_status_fails_with_a_short_piece_of_the_body(
    site: Site, status: int, kind: type[HttpError]
) -> None:
    site.say("/gone", b"line one\n\x1b[31mline two " + b"x" * 100_000, status)
    with pytest.raises(kind) as caught:
        call(site.url("/gone"))
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message.startswith(f"GET {site.url('/gone')} answered {status}, not a status of 2xx")
    if status != 304:
        assert ": line one [31mline two xxx" in message
    assert message.isprintable()
    assert len(message) < 400


def test_ok_says_which_statuses_are_expected(site: Site) -> None:
    site.say("/gone", {"why": "sold"}, 404)
    assert call(site.url("/gone"), ok=[200, 404])["body"] == {"why": "sold"}
    site.say("/made", b"", 201)
    assert call(site.url("/made"))["status"] == 201
    with pytest.raises(UnexpectedStatus, match="answered 201, not one of 200, 404"):
        call(site.url("/made"), ok=[200, 404])


# Redirects


def test_redirects_are_followed_and_the_last_url_is_told(site: Site) -> None:
    site.say("/a", b"", 301, location="/b?secret=1")
    site.say("/b", b"", 307, location=site.url("/c"))
    site.say("/c", b"there")
    reply = call(site.url("/a"))
    assert (reply["body"], reply["url"]) == ("there", site.url("/c"))
    assert [came.target for came in site.received] == ["/a", "/b?secret=1", "/c"]


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [(301, "POST", "GET"), (302, "POST", "GET"), (303, "PUT", "GET"), (307, "POST", "POST"), (308, "PUT", "PUT"),
     (302, "PUT", "PUT"), (303, "HEAD", "HEAD")],
)  # fmt: skip
def test_a_redirect_keeps_or_drops_method_and_body_as_its_status_says(
    site: Site, status: int, method: str, then: str
) -> None:
    site.say("/a", b"", status, location="/b")
    site.say("/b", b"")
    call(site.url("/a"), method=method, json=None if method == "HEAD" else [1])
    second = site.received[1]
    assert second.method == then
    assert second.body == (b"[1]" if then in ("POST", "PUT") else b"")
    assert ("content-type" in second.headers) == bool(second.body)


def test_headers_stay_within_their_origin(site: Site) -> None:
    headers = {"Authorization": "Bearer key", "X-Api-Key": "key", "Cookie": "c=1", "Accept": "text/plain"}
    with serve_site() as other:
        site.say("/a", b"", 307, location="/b")
        site.say("/b", b"", 307, location=other.url("/c"))
        other.say("/c", b"")
        call(site.url("/a"), headers=headers)
        for came in site.received:
            assert (came.headers["authorization"], came.headers["x-api-key"]) == ("Bearer key", "key")
        (came,) = other.received
        assert came.headers["accept"] == "text/plain"
        assert came.headers["host"] == f"127.0.0.1:{other.port}"
        assert not {"authorization", "x-api-key", "cookie"} & set(came.headers)


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "//192.168.0.1/", "http://[::1]:6379/",
     "http://inner.test/", "file:///etc/passwd", "ftp://127.0.0.1/", "http://user:word@127.0.0.1/", "http://[",
     "http://a b/", "gopher://127.0.0.1:6379/_INFO"],
)  # fmt: skip
def test_each_redirect_is_checked_anew(site: Site, names: Names, location: str) -> None:
    names.answers["inner.test"] = [["10.1.2.3"]]
    site.say("/", b"", 302, location=location)
    with pytest.raises(RequestRefused) as caught:
        call(site.url())
    assert "word" not in str(caught.value)
    assert len(site.received) == 1


def test_the_same_name_is_checked_again_after_a_redirect(names: Names) -> None:
    with serve_site() as first, serve_site() as second:
        names.answers["rebind.test"] = [["127.0.0.1"], ["10.0.0.1"]]
        first.say("/", b"", 302, location=second.url("/", host="rebind.test"))
        with pytest.raises(AddressRefused, match=r"10\.0\.0\.1"):
            call(first.url(host="rebind.test"))
        assert second.received == []


def test_redirects_end(site: Site) -> None:
    site.say("/", b"", 302, location="/")
    with pytest.raises(TooManyRedirects, match="more than 10"):
        call(site.url())
    assert len(site.received) == 11


def test_redirects_are_results_when_they_are_not_followed(site: Site) -> None:
    site.say("/", b"", 302, location="ftp://[")
    assert call(site.url(), follow_redirects=False, ok=[302])["headers"]["location"] == "ftp://["
    with pytest.raises(UnexpectedStatus, match="302"):
        call(site.url(), follow_redirects=False)
