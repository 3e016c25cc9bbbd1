"""The action `http.request` itself: its inputs and their bounds. What does the work is loaded at the first call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from orchestration.registry import ActionContext, action
from parallelizer.actions.http.errors import RequestRefused

#: A day; branches have limits of their own.
MAX_TIMEOUT_SECONDS = 86_400
#: Replies are held in memory, several at once.
MAX_BODY_BYTES = 67_108_864


@action("http.request")
async def request(  # noqa: PLR0913 - each is an input
    ctx: ActionContext,
    url: str,
    *,
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET",
    headers: Mapping[str, str | int | float] | None = None,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    body: str | None = None,
    timeout_seconds: float = 30,
    follow_redirects: bool = True,
    max_bytes: int = 1_048_576,
    ok: Sequence[int] | None = None,
) -> dict[str, object]:
    """Make an HTTP request and return the reply; fail when its status is not the expected one.

    Only addresses of the public internet are called, and networks that the setting `HTTP_ALLOWED_NETWORKS` names.
    Proxies and `.netrc` of the environment are not used, and no cookies are kept.
    Args: url: http or https; credentials in it become a header. params: added to its query.
        json, body: what is sent, as JSON or as text. timeout_seconds: for all, from the name look-up to the last byte.
        follow_redirects: up to 10; to another origin, none but the usual headers go along.
        max_bytes: of the body, as it came and decompressed; at most 64 MiB. ok: expected statuses; by default any 2xx.
    Returns: `status`; `url`, the last one, without its query; `headers`, names in small letters; `body`: JSON where the
        content type says so, else text, or base64 where it is no text, and then `base64` is true; `bytes`, its size.
    Raises: RequestRefused: an input is wrong. AddressRefused: the host is not one that may be called.
        ConnectionFailed, RequestTimedOut, TooManyRedirects. ReplyTooLarge, ReplyUnreadable.
        ClientErrorStatus, ServerErrorStatus, UnexpectedStatus: 4xx, 5xx, or another status that is not in `ok`.
        All are kinds of HttpError.
    """
    # httpx takes a fifth of a second to load and 15 MB, and most processes never need it
    from parallelizer.actions.http.exchange import exchange  # noqa: PLC0415
    from parallelizer.actions.http.outgoing import build_request  # noqa: PLC0415
    from parallelizer.actions.http.sent import Sent  # noqa: PLC0415

    _check(headers is None or isinstance(headers, Mapping), "headers must be an object of names and values")
    _check(params is None or isinstance(params, Mapping), "params must be an object of names and values")
    _check(
        _is_number(timeout_seconds) and 0 < timeout_seconds <= MAX_TIMEOUT_SECONDS,
        f"timeout_seconds must be more than 0 and at most {MAX_TIMEOUT_SECONDS}",
    )
    _check(
        _is_number(max_bytes) and 0 <= max_bytes <= MAX_BODY_BYTES,
        f"max_bytes must be a number from 0 to {MAX_BODY_BYTES}",
    )
    _check(
        ok is None or (isinstance(ok, Sequence) and len(ok) > 0 and all(map(_is_number, ok))),
        "ok must be a list of statuses, as in [200, 404]",
    )
    sent = Sent()
    return await exchange(
        build_request(str(method), url, headers or {}, params or {}, json, body, sent),
        networks=cast("tuple[str, ...]", ctx.options.get("http_allowed_networks", ())),
        timeout_seconds=timeout_seconds,
        follow_redirects=bool(follow_redirects),
        max_bytes=int(max_bytes),
        ok=None if ok is None else tuple(ok),
        sent=sent,
    )


def _check(right: bool, message: str) -> None:
    """Inputs that expressions give are known only now."""
    if not right:
        raise RequestRefused(message)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
