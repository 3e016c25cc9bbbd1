"""Fixtures for every test; see tests/support."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.support.servers", "tests.support.rabbitmq", "tests.support.fleet"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every command that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something about the machine only.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The file that actions of tests.support.journal write to; there is none yet."""
    return tmp_path / "journal"
