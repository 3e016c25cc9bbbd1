"""The actions that a command checks definitions against: built in, from entry points, and the user's own."""

from __future__ import annotations

import sys
from pathlib import Path

from config.settings import Settings
from orchestration.registry import load_actions


def load_known_actions(settings: Settings) -> None:
    """Load the actions that definitions are checked against, the user's own modules from the current folder too.

    Raises: ActionError: a module can't be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a file here must not take the place of a package
    load_actions(settings.action_modules)
