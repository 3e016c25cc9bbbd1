"""The Celery application object, configured when something first needs its configuration."""

from __future__ import annotations

import sys
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from celery import Celery

from config.celery_config import celery_config
from config.settings import Settings, WrongSetting, get_settings
from orchestration.state.wall_clock import WallClock
from tasks.transport import use_leased_transport


def usable_settings() -> Settings:
    """The settings, with both services named.

    Raises: WrongSetting: one is wrong, or REDIS_URL or DATABASE_URL is missing.
    """
    settings = get_settings()
    missing = [name for name in ("REDIS_URL", "DATABASE_URL") if getattr(settings, name.lower()) is None]
    if missing:
        raise WrongSetting(
            f"{' and '.join(missing)} must be set: in the environment, in .env, or in parallelizer.toml "
            "(`parallelizer up` starts both services and workers by itself)"
        )
    return settings


def _configuration() -> dict[str, Any]:
    """Read by Celery at the first use; at a command line of Celery a wrong setting is a sentence, not a traceback."""
    try:
        return celery_config(usable_settings())
    except WrongSetting as error:
        if Path(sys.argv[0]).stem == "celery" or sys.argv[0].endswith("celery/__main__.py"):
            sys.stderr.write(f"{error}\n")
            raise SystemExit(2) from None
        raise


@cache
def get_wall_clock() -> WallClock:
    """The time by which messages say when they may begin or expire.

    Raises: WrongSetting: REDIS_URL or DATABASE_URL is missing.
    """
    settings = usable_settings()
    assert settings.redis_url is not None
    return WallClock(settings.redis_url)


class ProcessorApp(Celery):
    """Celery, but for the clock: a countdown ends at the same moment wherever it began and whoever waits for it."""

    def now(self) -> datetime:
        """What time it is, by Redis."""
        return get_wall_clock().now().astimezone(self.timezone)


use_leased_transport()
app = ProcessorApp("tasks", include=["tasks.workflow", "tasks.runner", "tasks.complete"], set_as_current=True)
app.add_defaults(_configuration)

from tasks.worker import control, held_messages, lifecycle  # noqa: E402, F401 - adds the remote control and the bootsteps
