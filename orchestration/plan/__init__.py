"""From a definition to branches and joins. Pure: no I/O."""

from orchestration.plan.compile import compile_plan
from orchestration.plan.model import KEY_RATE, Branch, Limits, Plan, PlannedAction, RetryPolicy, Successor
from orchestration.plan.rules import decide
from orchestration.plan.width import most_ready

__all__ = [
    "KEY_RATE",
    "Branch",
    "Limits",
    "Plan",
    "PlannedAction",
    "RetryPolicy",
    "Successor",
    "compile_plan",
    "decide",
    "most_ready",
]
