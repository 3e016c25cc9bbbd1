"""Who may look and who may act: options without authentication, host names, operators, headers of every page.

Flower's own pages are under the same guard: it stands before all handlers.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from flower.utils.authentication import authenticate
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import OutputTransform, decode_signed_value

_log = logging.getLogger(__name__)

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: These change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: No script, style or frame but our own files; what a user's text may bring in finds nothing that runs it.
POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'"
)


def has_authentication(options: Any) -> bool:
    """Whether Flower asks who it is."""
    return bool(options.basic_auth or options.auth)


def secure_options(options: Any) -> None:
    """Without authentication: on this machine only, and to be looked at only.

    Raises: SystemExit: another address was asked for.
    """
    if has_authentication(options):
        return
    if options.address and options.address not in LOOPBACK:
        sys.exit(
            f"without authentication Flower is for this machine only, and --address={options.address} is not; "
            "set FLOWER_BASIC_AUTH=user:password (or --auth with an OAuth provider), or leave --address out"
        )
    options.address = options.address or "127.0.0.1"
    options.read_only = True
    _log.warning(
        "no authentication is configured: Flower listens on %s only, and changes nothing; "
        "FLOWER_BASIC_AUTH=user:password allows both",
        options.unix_socket or options.address,
    )


class Guard:
    """Decides on each request before anything else sees it.

    Args: options: Flower's. cookie_secret: with which its session cookie is signed. operators: who may act, by the name
        of the basic authentication or the e-mail address; none: whoever is signed in.
    """

    def __init__(self, options: Any, cookie_secret: str, operators: Sequence[str]) -> None:
        self._options = options
        self._cookie_secret = cookie_secret
        self._operators = frozenset(operators)

    def refusal_of(self, request: HTTPServerRequest) -> str | None:
        """Why nobody answers this request, in words; None: its handler does."""
        if not has_authentication(self._options):
            # A page of anybody's, by a host name that it has made to mean this machine, would else read everything.
            if host_of(request.host) not in LOOPBACK:
                return (
                    "without authentication Flower answers to the names localhost, 127.0.0.1 and [::1] only; "
                    "set FLOWER_BASIC_AUTH=user:password to reach it by another name"
                )
            if request.method not in SAFE_METHODS:
                return self.why_not_act(request)
        elif request.method not in SAFE_METHODS and self._operators and self.user_of(request) is not None:
            return self.why_not_act(request)
        return None

    def why_not_act(self, request: HTTPServerRequest) -> str | None:
        """Why whoever asks may change nothing, in words; None: they may, once they have proved who they are."""
        if not has_authentication(self._options):
            return "read-only: no authentication is configured; set FLOWER_BASIC_AUTH=user:password to act from here"
        if self._options.read_only:
            return "read-only: Flower was started with --read_only"
        user = self.user_of(request)
        if self._operators and user not in self._operators:
            return f"read-only for {user or 'you'}: not one of DASHBOARD_OPERATORS"
        return None

    def user_of(self, request: HTTPServerRequest) -> str | None:
        """The name that the request proves, by Flower's rules; None: none, or wrong."""
        if self._options.basic_auth:
            scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
            try:
                given = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                return None
            known = [one for one in self._options.basic_auth if hmac.compare_digest(one.encode(), given)]
            if scheme != "Basic" or not known:
                return None
            if not self._options.auth:
                return str(known[0].partition(":")[0])
        if not self._options.auth or "user" not in request.cookies:
            return None
        value = decode_signed_value(self._cookie_secret, "user", request.cookies["user"].value)
        user = value.decode() if value is not None else ""
        return user if user and authenticate(self._options.auth, user) else None


def host_of(host: str) -> str:
    """The name in a `Host` header, without port and brackets; empty if it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class SafeHeaders(OutputTransform):
    """On every answer: no frame of another site's, no guess at types."""

    def __init__(self, request: HTTPServerRequest) -> None:
        del request

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        del finishing
        # Flower's own pages have styles in their elements, so there the rest of the policy would break them.
        headers.setdefault("Content-Security-Policy", "frame-ancestors 'none'")
        headers.setdefault("X-Frame-Options", "DENY")
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "same-origin")
        return status_code, headers, chunk
