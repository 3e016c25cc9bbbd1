"""A chunk shared by two threads: each item is settled once, whoever does it, and a slow one holds nothing back."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import pytest

from orchestration.engine.chunk import SLOW_NS, ChunkRun
from orchestration.errors import StaleClaim
from orchestration.state.wire import kept_claim
from orchestration.vocabulary import Claim, Rest, Settlement, UnitKind

LATER = 10 * SLOW_NS


def claim_of(start: int, count: int) -> Claim:
    value = f"w#1/x|1|{count}|0|5|6"
    return Claim(UnitKind.CHUNK, "each", f"c:each:{start}", value, 1, 0, start, count)


def run_of(claim: Claim, flushed: list[Settlement], *, is_ours: bool = True) -> ChunkRun:
    def flush(settlement: Settlement) -> bool:
        flushed.append(settlement)
        return is_ours

    return ChunkRun(claim, flush, lambda index, began_ns: ["running", index], keeps_results=True)


def test_items_are_taken_in_order_and_settled_together() -> None:
    run = run_of(claim_of(10, 3), [])
    taken = []
    while (index := run.take()) is not None:
        taken.append(index)
        run.add("succeeded", [index], b"%d" % index)
    settlement = run.settlement()
    assert taken == [10, 11, 12]
    assert (settlement.settled, settlement.counts, settlement.item_results) == (3, {"succeeded": 3}, b"[10,11,12]")


def test_a_slow_item_is_left_alone_by_the_flushing_thread() -> None:
    flushed: list[Settlement] = []
    run = run_of(claim_of(0, 10), flushed)
    for _ in range(3):
        index = run.take()
        run.add("succeeded", [index], b"1")
    assert run.take() == 3
    assert run.look(time.monotonic_ns()) == []
    assert run.look(time.monotonic_ns() + LATER) == [["running", 3]]
    (settlement,) = flushed
    assert (settlement.settled, settlement.rest, settlement.rows) == (3, Rest.KEEP, [[0], [1], [2]])
    assert run.look(time.monotonic_ns() + LATER) == [], "said once"
    run.add("succeeded", [3], b"3")
    assert run.take() is None, "what was behind it has gone back"
    rest = run.settlement()
    assert rest.claim == kept_claim(settlement)
    assert (rest.claim.unit, rest.settled, rest.item_results) == ("c:each:3", 1, b"[3]")
    assert len(flushed) == 1


def test_a_single_slow_item_is_only_reported() -> None:
    flushed: list[Settlement] = []
    run = run_of(claim_of(7, 1), flushed)
    run.take()
    assert run.look(time.monotonic_ns() + LATER) == [["running", 7]]
    assert flushed == []


def test_an_item_that_waits_for_a_retry_ends_its_chunk() -> None:
    run = run_of(claim_of(0, 5), [])
    run.take()
    run.add("succeeded", [0], b"null")
    run.take()
    settlement = run.settlement((["waits"], 250))
    assert (settlement.settled, settlement.rest, settlement.delay_us, settlement.retry) == (1, Rest.DEFER, 250, 1)
    assert settlement.rows == [[0], ["waits"]]


def test_a_chunk_that_belongs_to_another_is_given_up() -> None:
    run = run_of(claim_of(0, 5), [], is_ours=False)
    run.take()
    run.look(time.monotonic_ns() + LATER)
    run.add("succeeded", [0], b"null")
    assert run.take() is None
    with pytest.raises(StaleClaim):
        run.settlement()


def test_a_flush_whose_answer_was_not_seen_is_repeated_before_anything_else() -> None:
    answers: list[Settlement] = []

    def flush(settlement: Settlement) -> bool:
        answers.append(settlement)
        if len(answers) == 1:
            raise ConnectionError("the reply is lost")
        return True

    run = ChunkRun(claim_of(0, 5), flush, lambda index, began_ns: [], keeps_results=False)
    run.take()
    run.add("succeeded", [0], b"null")
    run.take()
    with pytest.raises(ConnectionError):
        run.look(time.monotonic_ns() + LATER)
    run.add("succeeded", [1], b"null")
    run.take()
    settlement = run.settlement()
    assert answers[0] is answers[1]
    assert (answers[0].settled, answers[0].rows) == (1, [[0]])
    assert (settlement.claim.unit, settlement.settled, settlement.rows) == ("c:each:1", 1, [[1]])


@pytest.mark.parametrize("seed", range(5))
def test_every_item_is_settled_once_whenever_the_flushing_thread_looks(seed: int) -> None:
    """The looking thread says at random moments that the current item is slow."""
    rng = random.Random(seed)
    settled: Counter[int] = Counter()
    returned: list[tuple[int, int]] = [(0, 500)]

    def flush(settlement: Settlement) -> bool:
        note(settlement)
        first = settlement.claim.start + settlement.settled + 1
        if left := settlement.claim.start + settlement.claim.count - first:
            returned.append((first, left))
        return True

    def note(settlement: Settlement) -> None:
        assert settlement.settled == len(settlement.rows)
        settled.update(int(row[0]) for row in settlement.rows)  # type: ignore[call-overload]

    over = threading.Event()
    current: list[ChunkRun] = []

    def look() -> None:
        while not over.is_set():
            for run in current[-1:]:
                run.look(time.monotonic_ns() + (LATER if rng.random() < 0.05 else 0))

    looking = threading.Thread(target=look)
    looking.start()
    while returned:
        start, count = returned.pop()
        run = ChunkRun(claim_of(start, count), flush, lambda index, began_ns: [], keeps_results=False)
        current.append(run)
        while (index := run.take()) is not None:
            run.add("succeeded", [index], b"null")
        current.pop()
        settlement = run.settlement()
        note(settlement)
        if (left := settlement.claim.count - settlement.settled) > 0:
            returned.append((settlement.claim.start + settlement.settled, left))
    over.set()
    looking.join()
    assert settled == Counter(range(500))
