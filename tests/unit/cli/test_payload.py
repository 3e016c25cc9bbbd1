"""The payload as it is typed on the command line."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from orchestration.errors import PayloadError
from parallelizer.cli.payload import read_payload

MAX_BYTES = 1000


def test_no_payload_is_an_empty_one() -> None:
    assert read_payload(None, MAX_BYTES) == {}


def test_a_payload_is_read_from_the_option_a_file_or_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '{"id": 7, "name": "é"}'
    (tmp_path / "p.json").write_text("\ufeff" + text, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    for option in (text, f"@{tmp_path / 'p.json'}", "@-"):
        assert read_payload(option, MAX_BYTES) == {"id": 7, "name": "é"}


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("", r"not JSON.*line 1, column 1"),
        ("{order_id: 7}", r"not JSON.*single quotes"),
        ("[1]", "must be a JSON object.*not a list"),
        ("null", "not null"),
        ('"x"', "not a string"),
        ("3", "not a number"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 9223372036854775808}', "64 bits"),
        ('{"a": 1' + "0" * 500 + "}", "64 bits"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('{"a": ' * 101 + "1" + "}" * 101, "deeper than 100"),
        ('{"a": "' + "x" * MAX_BYTES + '"}', "larger than 1,000 bytes .MAX_PAYLOAD_BYTES"),
        ("@", "folder|can't read"),
        ("@nowhere.json", "can't read the payload file nowhere.json: No such file"),
        ('{"a": "\udce9"}', "not UTF-8: byte 0xe9"),
    ],
)
def test_what_is_no_payload_is_explained(option: str, complaint: str) -> None:
    with pytest.raises(PayloadError, match=complaint):
        read_payload(option, MAX_BYTES)


def test_a_payload_of_the_greatest_depth_and_numbers_is_accepted() -> None:
    assert read_payload('{"a": ' * 100 + "1" + "}" * 100, MAX_BYTES)
    assert read_payload('{"a": [9223372036854775807, -9223372036854775808]}', MAX_BYTES)


def test_endless_nesting_ends_at_once() -> None:
    with pytest.raises(PayloadError, match="deeper than 100"):
        read_payload('{"a":' + "[" * 200_000 + "]" * 200_000 + "}", 1_000_000)


def test_a_folder_as_payload_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PayloadError, match="is a folder"):
        read_payload(f"@{tmp_path}", MAX_BYTES)


def test_a_payload_file_of_50_mb_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    with pytest.raises(PayloadError, match="larger than"):
        read_payload(f"@{path}", MAX_BYTES)
