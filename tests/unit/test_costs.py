"""What actions have cost lately decides how many items go into a chunk and which forks are not shared."""

from __future__ import annotations

from orchestration.definition import load_definition
from orchestration.engine.costs import CHUNK_NS, GROWTH, MOST_ITEMS, Cost, CostBook
from orchestration.plan import compile_plan
from orchestration.registry import load_actions


def test_the_first_claim_is_one_item_and_then_chunks_grow_to_the_most() -> None:
    cost, sizes = Cost(), []
    for _ in range(6):
        sizes.append(cost.chunk)
        cost.record(1000 * cost.chunk, cost.chunk)
    assert sizes == [1, GROWTH, GROWTH**2, MOST_ITEMS, MOST_ITEMS, MOST_ITEMS]


def test_a_chunk_aims_at_so_much_work() -> None:
    cost = Cost()
    for _ in range(20):
        cost.record(cost.chunk * 1_000_000, cost.chunk)
    assert cost.chunk == CHUNK_NS // 1_000_000


def test_items_that_take_long_are_claimed_one_by_one_and_small_ones_are_not_forgotten() -> None:
    cost = Cost()
    for _ in range(5):
        cost.record(cost.chunk * 10_000, cost.chunk)
    cost.record(1_000_000_000, 1)
    assert cost.chunk == 1
    for _ in range(20):
        cost.record(cost.chunk * 10_000, cost.chunk)
    assert cost.chunk == MOST_ITEMS


def test_a_fork_is_estimated_only_when_each_of_its_actions_has_run() -> None:
    load_actions(())
    definition = {
        "name": "w",
        "actions": {
            "a": {"uses": "core.noop"},
            "b": {"uses": "core.noop", "needs": ["a"]},
            "c": {"uses": "core.noop", "needs": ["a"], "for_each": {"range": 10}},
        },
    }
    actions = list(compile_plan(load_definition(definition)).actions.values())
    book = CostBook()
    book.of("a").record(1000)
    book.of("b").record(2000)
    assert book.estimate_ns(actions) is None
    assert book.estimate_ns(actions[:2]) == 3000
    book.of("c").record(50_000, 10)
    book.of("c").size = 10
    assert book.estimate_ns(actions) == 53_000
