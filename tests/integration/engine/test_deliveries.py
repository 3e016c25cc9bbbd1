"""Who gives the result to the caller when several processes have completed a session at the same moment."""

from __future__ import annotations

import os
import uuid

from orchestration.engine.processor import EnhancedParallelProcessor, Fork, RunRequest
from orchestration.state.wire import lives_in
from orchestration.vocabulary import Verdict
from tests.support.stepping import SteppingEngine


def ended(engine: SteppingEngine) -> str:
    """A session that has ended, and is to be completed."""
    noop = {"uses": "core.noop"}
    request = RunRequest(str(uuid.uuid4()), {"name": "two", "actions": {"a": noop, "b": noop}}, {}, "branches")
    fork = engine.processor.process_workflow_parallel(request)
    assert isinstance(fork, Fork)
    engine.processor.open_fork(fork, "signature")
    assert engine.processor.run_fork(fork) is Verdict.ENDED
    return request.flow_session_id


def other_worker(engine: SteppingEngine) -> EnhancedParallelProcessor:
    processor = engine.processor
    return EnhancedParallelProcessor(
        processor.settings, processor.stores, processor.versions, engine.links, processor.limit, "other#1"
    )


def test_of_two_that_complete_a_session_the_first_that_closes_it_delivers(engine: SteppingEngine) -> None:
    session = ended(engine)
    first, second = engine.processor.complete_workflow(session), other_worker(engine).complete_workflow(session)
    assert first == second
    assert (first.delivered_by_another, second.delivered_by_another) == (False, True)


def test_whoever_has_recorded_the_end_does_not_deliver_what_another_has_closed_before(engine: SteppingEngine) -> None:
    session, other = ended(engine), other_worker(engine)
    row = engine.processor._row(session)
    assert not engine.processor._end_open(row)[0].recorded_before
    taken = other.complete_workflow(session)
    assert (taken.recorded_before, taken.delivered_by_another) == (True, False)
    assert engine.processor.complete_workflow(session).delivered_by_another


def test_when_whoever_was_to_deliver_is_dead_the_next_one_does(engine: SteppingEngine) -> None:
    session, other = ended(engine), other_worker(engine)
    engine.processor.complete_workflow(session)
    assert other.complete_workflow(session).delivered_by_another
    assert not engine.live.release_delivery(session, lives_in("stepping#1", 1)), "another process of its worker died"
    assert engine.live.release_delivery(session, lives_in("stepping#1", os.getpid()))
    assert not other.complete_workflow(session).delivered_by_another
    assert engine.processor.complete_workflow(session).delivered_by_another


def test_when_the_lease_of_whoever_was_to_deliver_is_over_the_next_one_does(engine: SteppingEngine) -> None:
    session, other = ended(engine), other_worker(engine)
    engine.processor.complete_workflow(session)
    key = engine.live.space.key("closed", session)
    holder, _, expires = engine.live.client.get(key).rpartition(b"|")
    assert int(expires) > engine.live.now_us() + 25_000_000
    engine.live.client.set(key, holder + b"|1", keepttl=True)
    assert not other.complete_workflow(session).delivered_by_another
    assert engine.live.client.ttl(key) > 86_000, "it is not opened again for a day"


def test_the_result_of_a_session_that_never_was_open_needs_no_claim(engine: SteppingEngine) -> None:
    request = RunRequest(str(uuid.uuid4()), {"name": "one", "actions": {"a": {"uses": "core.noop"}}}, {}, "branches")
    engine.processor.process_workflow_parallel(request)
    for _ in range(2):
        result = engine.processor.complete_workflow(request.flow_session_id)
        assert (result.recorded_before, result.delivered_by_another) == (True, False)
    assert not engine.live.client.exists(engine.live.space.key("closed", request.flow_session_id))
