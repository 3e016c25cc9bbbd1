"""Trigger rules: does an action run, given how its direct predecessors ended? Pure.

Source: Airflow's rules, decided once, over all settled predecessors, so that the answer never depends on their order.
"""

from __future__ import annotations

from orchestration.vocabulary import JoinCounts, Outcome, TriggerRule


def decide(rule: TriggerRule, counts: JoinCounts) -> Outcome | None:  # noqa: C901, PLR0912 - a table of eleven rules
    """Decide whether an action starts.

    Args: counts: over *all* direct predecessors.
    Returns: None when it runs, else what it becomes without running: SKIPPED or UPSTREAM_FAILED.
    """
    if counts.total == 0:
        return None
    failed_before = counts.failed + counts.upstream_failed > 0
    all_skipped = counts.skipped == counts.total
    match rule:
        case TriggerRule.ALL_DONE | TriggerRule.ALWAYS:
            runs = True
        case TriggerRule.ALL_SUCCESS:
            if counts.succeeded == counts.total:
                return None
            return Outcome.UPSTREAM_FAILED if failed_before else Outcome.SKIPPED
        case TriggerRule.ONE_SUCCESS:
            if counts.succeeded:
                return None
            return Outcome.SKIPPED if all_skipped else Outcome.UPSTREAM_FAILED
        case TriggerRule.NONE_FAILED:
            return Outcome.UPSTREAM_FAILED if failed_before else None
        case TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS:
            if failed_before:
                return Outcome.UPSTREAM_FAILED
            runs = counts.succeeded > 0
        case TriggerRule.ALL_FAILED:
            runs = counts.failed + counts.upstream_failed == counts.total
        case TriggerRule.ONE_FAILED:
            runs = failed_before
        case TriggerRule.ONE_DONE:
            runs = counts.succeeded + counts.failed > 0
        case TriggerRule.ALL_SKIPPED:
            runs = all_skipped
        case TriggerRule.NONE_SKIPPED:
            runs = counts.skipped == 0
    return None if runs else Outcome.SKIPPED
