"""`parallelizer limits`: what is no limit, and no value of one, is refused before any service is asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from parallelizer.cli.main import run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "global", "0"), "from 1 to 1,000,000"),
        (("set", "global", "-1"), "from 1 to 1,000,000"),
        (("set", "global", "many"), "'many'"),
        (("set", "global", "1.5"), "'1.5'"),
        (("set", "global", "1000001"), "from 1 to 1,000,000"),
        (("set", "session:a", "10001"), "from 1 to 10,000"),
        (("set", "everything", "1"), "'everything' is no limit"),
        (("set", "workflow:", "1"), "is no limit"),
        (("set", "sessions:workflow:", "1"), "is no limit"),
        (("set", "sessions:key:ada", "0"), "from 1 to 1,000,000"),
        (("set", "workflow:a b", "1"), "is no limit"),
        (("set", "key:", "1"), "can't be empty"),
        (("unset", "key:" + "k" * 257), "at most 256 bytes"),
        (("set", "global"), "Missing argument 'VALUE'"),
    ],
)
def test_what_is_no_limit_is_refused_in_words(
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["parallelizer", "limits", *arguments])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
