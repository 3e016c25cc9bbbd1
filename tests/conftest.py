"""Fixtures for every test; see tests/support."""

import signal
from pathlib import Path

import pytest

pytest_plugins = ["tests.support.servers", "tests.support.fleet"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every command that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The file that actions of tests.support.journal write to; there is none yet."""
    return tmp_path / "journal"
