"""Requests as they go out: inputs of the action turned into an `httpx.Request`, and where a redirect leads. Pure.

No `httpx.AsyncClient` sends them: it would keep cookies from one workflow to the next, read `.netrc` and proxies from
the environment, and log each URL with its query.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

import httpx

from parallelizer.actions.http.bodies import CODINGS
from parallelizer.actions.http.errors import RequestRefused
from parallelizer.actions.http.sent import Sent

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
Scalar = str | int | float | bool | None

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: What the connection decides, and a definition must not contradict.
_OURS = frozenset(
    (
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
        "proxy-authorization",
    )
)  # fmt: skip
#: All that goes along to another origin: any other header may be a key for the first one only.
_FOR_ALL_ORIGINS = frozenset({"accept", "accept-encoding", "accept-language", "content-type", "user-agent"})
#: A name as it is looked up, or an address; what `httpx` escapes, as in `a%20b`, is never either.
_HOST = re.compile(r"[0-9a-z_.-]+|[0-9a-f:.]+", re.IGNORECASE)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def build_request(
    method: str,
    url: str,
    headers: Mapping[str, Scalar],
    params: Mapping[str, Scalar | Sequence[Scalar]],
    json_value: object,
    body: str | None,
    sent: Sent,
) -> httpx.Request:
    """The first request; what must not be shown of it is added to `sent`.

    Raises: RequestRefused: an input is wrong; the message names it, and shows nothing that may be a secret.
    """
    if method.upper() not in METHODS:
        raise RequestRefused(f"method must be one of {', '.join(METHODS)}")
    fields = {"accept": "*/*", "accept-encoding": CODINGS, "user-agent": "celery-parallelizer"}
    content = b""
    if json_value is not None:
        if body is not None:
            raise RequestRefused("json and body are both given; a request has one body")
        content, fields["content-type"] = _as_json(json_value), "application/json"
    elif body is not None:
        content, fields["content-type"] = _as_bytes(body), "text/plain; charset=utf-8"
    fields |= _own_headers(headers, sent)
    sent.add_body(json_value, body)
    target = _checked(parse_url(url), "url")
    if target.userinfo:
        if "authorization" in fields:
            raise RequestRefused("there are credentials both in url and in the header Authorization; leave one out")
        fields["authorization"] = _basic(target, sent)
        target = target.copy_with(username=None, password=None)
    sent.add_query(target.query.decode("ascii"))
    if params:
        target = _with_params(target, params, sent)
    return _request(method.upper(), target, fields, content)


def follow_redirect(request: httpx.Request, status: int, headers: httpx.Headers, sent: Sent) -> httpx.Request | None:
    """The request that a reply sends the client to, or None where it is no redirect.

    Headers of the definition go along within the origin (scheme, host, port) only. 303, and 301 and 302 after a POST,
    become a GET without a body, as with all clients.
    Raises: RequestRefused: it leads to something that is not called.
    """
    location = headers.get("location")
    if status not in _REDIRECTS or location is None:
        return None
    try:
        target = request.url.join(location)
    except (httpx.InvalidURL, ValueError):
        raise RequestRefused(f"{shown(request.url)} redirects to what is no URL") from None
    _checked(target, f"the redirect of {shown(request.url)}")
    if target.userinfo:
        raise RequestRefused(f"{shown(request.url)} redirects to a URL with credentials in it")
    sent.add_query(target.query.decode("ascii"))
    raw = ((name.decode("ascii").lower(), value.decode("latin-1")) for name, value in request.headers.raw)
    fields = {name: value for name, value in raw if name not in _OURS}
    if origin_of(target) != origin_of(request.url):
        fields = {name: value for name, value in fields.items() if name in _FOR_ALL_ORIGINS}
    method, content = request.method, request.content
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, content = "GET", b""
        fields.pop("content-type", None)
    return _request(method, target, fields, content)


def parse_url(url: str) -> httpx.URL:
    """A URL as one parser reads it, which is the one that says where to connect to.

    Raises: RequestRefused: it is none; the message does not repeat it.
    """
    try:
        return httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise RequestRefused(
            "url can't be read as a URL; it looks like https://host/path?name=value, special characters as %XX"
        ) from None


def origin_of(url: httpx.URL) -> tuple[str, str, int]:
    """Scheme, host and port."""
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}[url.scheme]


def shown(url: httpx.URL) -> str:
    """The URL without what may be secret: credentials, query, fragment."""
    text = str(url.copy_with(username=None, password=None, query=None, fragment=None))
    return text if len(text) <= 200 else f"{text[:197]}..."


def _request(method: str, url: httpx.URL, fields: Mapping[str, str], content: bytes) -> httpx.Request:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
    return httpx.Request(method, url, headers=encoded, content=content or None)


def _checked(url: httpx.URL, what: str) -> httpx.URL:
    if url.scheme not in ("http", "https"):
        raise RequestRefused(f"{what} has the scheme {url.scheme[:40]!r}; only http and https are called")
    if not _HOST.fullmatch(url.raw_host.decode("ascii")):
        raise RequestRefused(f"{what} has no host, or one that can be no host's name")
    if url.port is not None and not 0 < url.port < 65_536:
        raise RequestRefused(f"{what} has the port {url.port}; ports are 1 to 65535")
    return url


def _own_headers(headers: Mapping[str, Scalar], sent: Sent) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, given in headers.items():
        key, value = str(name).lower(), str(given)
        if not _TOKEN.fullmatch(key):
            raise RequestRefused(f"headers has {name[:40]!r}, which is no name of a header")
        if key in _OURS:
            raise RequestRefused(f"the header {name} is set by http.request itself")
        if key in fields:
            raise RequestRefused(f"the header {name} is given twice, in capitals and small letters")
        if not isinstance(given, str | int | float) or not _FIELD_VALUE.fullmatch(value):
            raise RequestRefused(f"the header {name} must be text without line breaks, in Latin-1")
        fields[key] = value.strip()
        if key not in _FOR_ALL_ORIGINS:
            sent.add_header(value)
    return fields


def _basic(url: httpx.URL, sent: Sent) -> str:
    token = b64encode(f"{url.username}:{url.password}".encode()).decode()
    for part in (url.username, url.password, unquote(url.password), token):
        sent.add(part)
    return f"Basic {token}"


def _with_params(url: httpx.URL, params: Mapping[str, Scalar | Sequence[Scalar]], sent: Sent) -> httpx.URL:
    pairs = []
    for name, given in params.items():
        values = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        for value in values:
            if not isinstance(value, str | int | float | None):
                raise RequestRefused(f"params.{name[:40]} must be text, a number, true, false, or a list of them")
            pairs.append((name, value))
            sent.add(str(value))
    try:
        return url.copy_merge_params(httpx.QueryParams(pairs))
    except UnicodeEncodeError:
        raise RequestRefused("params has text that is not Unicode") from None


def _as_json(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise RequestRefused(f"json can't be written as JSON ({type(error).__name__})") from None


def _plain(value: object) -> object:
    """Lazy views of results, as expressions give them."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError


def _as_bytes(body: str) -> bytes:
    if not isinstance(body, str):
        raise RequestRefused(f"body must be text; it is {type(body).__name__}. Objects and lists go into json")
    try:
        return body.encode()
    except UnicodeEncodeError:
        raise RequestRefused("body has text that is not Unicode") from None
