"""`payload_schema`: is it a JSON Schema, and does a payload fit it? Pure: external references are refused.

Both common libraries fetch http and file references by default; the retriever that raises stops that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jsonschema_rs

from orchestration.definition.places import DocumentPath, Finding, field_text
from orchestration.errors import PayloadError

#: Most mistakes of one payload that are reported.
MAX_REPORTED = 10


def check_payload(schema: Mapping[str, object] | None, payload: object) -> None:
    """Do nothing if the payload fits the schema (or there is none).

    Raises: PayloadError: it does not; the message names each field and what is wrong there, not its value.
    """
    PayloadChecker(schema).check(payload)


class PayloadChecker:
    """A compiled `payload_schema`; worth keeping for each version, because compiling takes longer than checking."""

    __slots__ = ("_validator",)

    def __init__(self, schema: Mapping[str, object] | None) -> None:
        self._validator = None if schema is None else _compile(dict(schema))

    def check(self, payload: object) -> None:
        """See `check_payload`."""
        if self._validator is None or self._validator.is_valid(payload):
            return
        reasons: list[str] = []
        for error in self._validator.iter_errors(payload):
            if len(reasons) == MAX_REPORTED:
                reasons.append("…")
                break
            place = field_text(("payload", *error.instance_path))
            reasons.append(f"{place}: {str(error.message)[:300]}")
        raise PayloadError("the payload does not fit the workflow's payload_schema: " + "; ".join(reasons))


def find_schema_mistakes(schema: object) -> Iterator[Finding]:
    """Find out whether a `payload_schema` can be used."""
    if not isinstance(schema, Mapping):
        return  # absent, or reported by the model
    path: DocumentPath = ("payload_schema",)
    try:
        jsonschema_rs.meta.validate(dict(schema))
    except jsonschema_rs.ValidationError as error:
        yield Finding((*path, *error.instance_path), f"not a JSON Schema: {str(error.message)[:300]}")
        return
    except Exception as error:  # noqa: BLE001 - the library raises several kinds, for an unknown $schema among others
        yield Finding(path, f"not a JSON Schema: {_first_line(error)}")
        return
    try:
        _compile(dict(schema))
    except Exception as error:  # noqa: BLE001 - see above
        yield Finding(path, f"can't be used: {_first_line(error)}")


def _compile(schema: dict[str, object]) -> Any:
    return jsonschema_rs.validator_for(schema, retriever=_refuse)


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"$ref to {uri[:200]}: only references within the schema (#/$defs/…) are allowed")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
