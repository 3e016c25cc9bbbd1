"""The Celery application: `celery -A tasks worker`, `from tasks import run_workflow`.

The only package that knows Celery. It checks first that `config` and `orchestration` are ours: both names are common,
and a stranger found earlier on the path would fail somewhere deep inside.
"""

from __future__ import annotations

import importlib

__distribution__ = "celery-parallelizer"

for _name in ("config", "orchestration"):
    _package = importlib.import_module(_name)
    if getattr(_package, "__distribution__", None) != __distribution__:
        raise ImportError(
            f"package {_name!r} at {getattr(_package, '__file__', None)} is not that of {__distribution__}; "
            "rename it, or start from a folder that has no module of that name"
        )

from tasks.celery_app import app  # noqa: E402 - after the check
from tasks.control import (  # noqa: E402
    cancel_session,
    pause_all,
    pause_session,
    resume_all,
    resume_session,
    retry_session,
)
from tasks.flower import use_processor_flower  # noqa: E402
from tasks.workflow import run_workflow  # noqa: E402

use_processor_flower()

__all__ = [
    "app",
    "cancel_session",
    "pause_all",
    "pause_session",
    "resume_all",
    "resume_session",
    "retry_session",
    "run_workflow",
]
