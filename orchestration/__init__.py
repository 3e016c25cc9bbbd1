"""The workflow engine. What users' action modules import is here; the engine's classes are loaded when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestration.errors import Cancelled
from orchestration.registry import ActionContext, action

if TYPE_CHECKING:
    from orchestration.engine.branch import EnhancedBranchProcessor
    from orchestration.engine.context import ProcessingContext
    from orchestration.engine.processor import EnhancedParallelProcessor, process_workflow

__distribution__ = "celery-parallelizer"

__all__ = [
    "ActionContext",
    "Cancelled",
    "EnhancedBranchProcessor",
    "EnhancedParallelProcessor",
    "ProcessingContext",
    "action",
    "process_workflow",
]

#: An actions module must stay cheap to import, so these are not loaded before somebody names them.
_LATER = {
    "EnhancedBranchProcessor": "orchestration.engine.branch",
    "EnhancedParallelProcessor": "orchestration.engine.processor",
    "ProcessingContext": "orchestration.engine.context",
    "process_workflow": "orchestration.engine.processor",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'orchestration' has no attribute {name!r}")
