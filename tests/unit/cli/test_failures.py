"""Every error becomes a sentence and an exit code; a traceback only where it is asked for."""

from __future__ import annotations

import stat
from pathlib import Path

import psycopg2
import pytest
import redis

from config.settings import WrongSetting, get_settings
from orchestration.errors import (
    ActionError,
    DefinitionError,
    PayloadError,
    Problem,
    ServiceUnreachable,
    UnknownRun,
    UnknownWorkflow,
)
from parallelizer.cli.failures import DEBUG_VARIABLE, ERROR_LOG, WrongUse, failures_in_words, without_passwords


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)
    monkeypatch.delenv("DATA_DIR", raising=False)
    get_settings.cache_clear()


def outcome(error: BaseException) -> int:
    """The exit code of a command that raises `error`."""
    with pytest.raises(SystemExit) as ended, failures_in_words():
        raise error
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WrongUse("x"), 2),
        (WrongSetting("REDIS_URL: x"), 2),
        (PayloadError("x"), 2),
        (UnknownWorkflow("x"), 2),
        (UnknownRun("x"), 2),
        (ActionError("x"), 2),
        (DefinitionError([Problem("x")]), 2),
        (ServiceUnreachable("x"), 3),
        (redis.exceptions.ConnectionError("x"), 3),
        (redis.exceptions.AuthenticationError("x"), 3),
        (psycopg2.OperationalError("x"), 3),
        (RuntimeError("x"), 70),
        (BaseExceptionGroup("x", [ValueError("y")]), 70),
        (KeyboardInterrupt(), 130),
        (SystemExit(1), 1),
    ],
)
def test_every_error_has_its_exit_code_and_no_traceback(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(error) == code
    assert "Traceback" not in capsys.readouterr().err


def test_all_mistakes_of_a_definition_are_printed_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [
        Problem("unknown action 'core.eco'", "actions.a.uses", "w.yaml", 3, 9, "did you mean core.echo?"),
        Problem("must be a list", "actions.b.needs", "w.yaml", 7, 5),
    ]
    assert outcome(DefinitionError(problems)) == 2
    assert capsys.readouterr().err.splitlines() == [
        "w.yaml:3:9: actions.a.uses: unknown action 'core.eco' (did you mean core.echo?)",
        "w.yaml:7:5: actions.b.needs: must be a list",
        "2 mistakes; nothing was run",
    ]


def test_an_unexpected_error_is_kept_in_a_private_log_without_passwords(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".parallelizer").mkdir()
    assert outcome(RuntimeError("no answer from redis://:s3cret@host:1/0")) == 70
    said = capsys.readouterr().err
    log = tmp_path / ".parallelizer" / "log" / ERROR_LOG
    assert said.count("\n") == 1
    assert str(log) in said
    assert "redis://:***@host" in said
    assert "Traceback" in log.read_text()
    assert "s3cret" not in said + log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_without_a_data_folder_none_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(RuntimeError("x")) == 70
    assert f"{DEBUG_VARIABLE}=1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    assert outcome(ServiceUnreachable("x")) == 3
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pa%40ss@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("rediss://:p/w@h", "rediss://:***@h"),
        ("redis://:p@ss@h:1", "redis://:***@h:1"),
        ("at redis://host:6379/0 and me@example.org", "at redis://host:6379/0 and me@example.org"),
    ],
)
def test_passwords_in_urls_are_never_shown(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
