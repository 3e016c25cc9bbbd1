"""`celery -A tasks flower` is Flower with our pages in it.

Flower has no way in for pages of others. But `celery` loads each command before it imports the app, so Flower's own
command is there by now, whatever is about to run; and it makes its application by a name that can be set to another.
The pages are loaded when that is called, so no worker has anything of them.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

#: Flower would keep 100,000 tasks (617 MB measured) and ask all workers for events, which it has to digest one by one.
#: The pages need neither. Flower reads these variables after the app is imported; what is set is left alone.
_DEFAULTS = {
    "FLOWER_ENABLE_EVENTS": "false",
    "FLOWER_MAX_TASKS": "5000",
    "FLOWER_PURGE_OFFLINE_WORKERS": "3600",
}


def use_processor_flower() -> None:
    """From now on Flower's command starts Flower with our pages; without that command nothing happens."""
    command = sys.modules.get("flower.command")
    if command is None:
        return
    command.Flower = _make  # type: ignore[attr-defined]
    context = click.get_current_context(silent=True)
    if context is not None and context.invoked_subcommand == "flower":
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)


def _make(**arguments: Any) -> Any:
    from tasks.dashboard.application import ProcessorFlower  # noqa: PLC0415 - a worker loads nothing of the pages

    return ProcessorFlower(**arguments)
