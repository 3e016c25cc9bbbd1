"""What `http.request` fails with; `retry_on` and `never_on` take the names of these classes.

Their texts are made of what is no secret: method, scheme, host, path, status, and names of inputs. What a server or a
library says is shown only after `Sent.hide`.
"""

from __future__ import annotations


class HttpError(Exception):
    """Base of all errors of `http.request`."""


class RequestRefused(HttpError, ValueError):
    """The request can't be made as it is written; trying again changes nothing."""


class AddressRefused(RequestRefused):
    """The host is not on the public internet, nor in a network that the operator allows."""


class ConnectionFailed(HttpError):
    """The name was not found, nothing answered, TLS failed, or the connection broke."""


class RequestTimedOut(HttpError):
    """The whole reply was not there in time."""


class TooManyRedirects(HttpError):
    """The servers sent the request from one to the next too often."""


class ReplyTooLarge(HttpError):
    """The body has more bytes than `max_bytes`, as it came or decompressed."""


class ReplyUnreadable(HttpError):
    """The body is not what its headers say: not JSON, or compressed in an unknown or broken way."""


class UnexpectedStatus(HttpError):
    """The status is none of those in `ok`."""


class ClientErrorStatus(UnexpectedStatus):
    """It is a 4xx: the request is at fault."""


class ServerErrorStatus(UnexpectedStatus):
    """It is a 5xx: the server is, and may answer another time."""
