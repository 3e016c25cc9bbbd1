"""A real HTTP server on loopback whose pages are functions of the test."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import trustme


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    #: Path and query.
    target: str
    #: Names in small letters.
    headers: dict[str, str]
    body: bytes
    #: The client's end of the connection.
    client: tuple[str, int]


class Visit(BaseHTTPRequestHandler):
    """One connection; a page answers through its methods, or through `wfile` what is no HTTP."""

    protocol_version = "HTTP/1.1"
    site: Site

    def reply(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        """Send a whole reply; `content_type="…"` becomes `content-type`."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "content_length" not in headers:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _serve(self) -> None:
        length = int(self.headers.get("content-length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.received = Received(self.command, self.path, headers, self.rfile.read(length), self.client_address)
        self.site.received.append(self.received)
        page = self.site.pages.get(urlsplit(self.path).path)
        if page is None:
            self.reply(b"no such page", 404)
        else:
            page(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815 - the base class's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what some tests are about."""


@dataclass
class Site:
    """What a server has, and what it was asked for."""

    host: str
    port: int
    scheme: str
    pages: dict[str, Callable[[Visit], None]] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)

    def url(self, target: str = "/", host: str | None = None) -> str:
        return f"{self.scheme}://{host or self.host}:{self.port}{target}"

    def page(self, path: str) -> Callable[[Callable[[Visit], None]], Callable[[Visit], None]]:
        """Make a function the page at `path`."""

        def keep(page: Callable[[Visit], None]) -> Callable[[Visit], None]:
            self.pages[path] = page
            return page

        return keep

    def say(self, path: str, body: object, status: int = 200, **headers: str) -> None:
        """A page that always gives the same: bytes, or JSON."""
        if isinstance(body, bytes):
            self.pages[path] = lambda visit: visit.reply(body, status, **headers)
        else:
            text = json.dumps(body).encode()
            self.pages[path] = lambda visit: visit.reply(text, status, content_type="application/json", **headers)


def hold_until(event: threading.Event) -> Callable[[Visit], None]:
    """A page that says nothing before the event."""

    def page(_visit: Visit) -> None:
        event.wait()

    return page


@contextmanager
def serve_site(host: str = "127.0.0.1", *, authority: trustme.CA | None = None) -> Iterator[Site]:
    """A server on a free port; with an `authority` it speaks TLS, and its certificate is for `named.test`."""
    visit = type("SiteVisit", (Visit,), {})
    with _Server((host, 0), visit) as server:
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("named.test").configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        site = Site(host, server.server_port, "http" if authority is None else "https")
        visit.site = site  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
