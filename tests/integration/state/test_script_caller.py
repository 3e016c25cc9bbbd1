"""Calling a script survives what happens to connections and servers, without doing anything twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from orchestration.state.client import ScriptCaller, connect
from orchestration.state.live import LiveState
from orchestration.state.records import Runner
from orchestration.vocabulary import Verdict
from tests.support.waiting import wait_until

SOURCE = "return redis.call('INCR', KEYS[1])"
WRONG_SHA = "0" * 40


@pytest.fixture
def caller(redis_url: str) -> Iterator[ScriptCaller]:
    with connect(redis_url) as client, closing(ScriptCaller(client)) as caller:
        yield caller


def sha_of(redis_url: str) -> str:
    return str(connect(redis_url).script_load(SOURCE))


def test_a_script_that_the_server_does_not_know_is_sent_whole(caller: ScriptCaller, namespace: str) -> None:
    assert caller.call(WRONG_SHA, SOURCE, [1, namespace]) == 1
    assert caller.call(WRONG_SHA, SOURCE, [1, namespace]) == 2


def test_a_connection_that_was_cut_is_made_anew(caller: ScriptCaller, redis_url: str, namespace: str) -> None:
    sha = sha_of(redis_url)
    assert caller.call(sha, SOURCE, [1, namespace]) == 1
    for number in range(2, 300, 2):
        caller._own.connection._sock.close()
        assert caller.call(sha, SOURCE, [1, namespace]) == number
        assert caller.call(sha, SOURCE, [1, namespace]) == number + 1
        assert caller._own.connection._sock is not None, "it is in use again, however often it was cut"


def test_a_server_that_forgot_its_scripts_and_cut_everybody_off_is_no_error(
    caller: ScriptCaller, redis_url: str, namespace: str
) -> None:
    sha = sha_of(redis_url)
    assert caller.call(sha, SOURCE, [1, namespace]) == 1
    with redis.Redis.from_url(redis_url) as other:
        other.script_flush()
        other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert caller.call(sha, SOURCE, [1, namespace]) == 2


def test_an_error_of_the_script_reaches_the_caller_and_leaves_the_connection_usable(
    caller: ScriptCaller, redis_url: str, namespace: str
) -> None:
    broken = "return redis.call('INCR', KEYS[1], 'too many')"
    with pytest.raises(redis.exceptions.ResponseError):
        caller.call(str(connect(redis_url).script_load(broken)), broken, [1, namespace])
    assert caller.call(sha_of(redis_url), SOURCE, [1, namespace]) == 1


def test_what_was_sent_is_done_although_the_process_dies_and_the_server_did_not_know_the_script(
    caller: ScriptCaller, redis_url: str, namespace: str
) -> None:
    sha = sha_of(redis_url)
    with redis.Redis.from_url(redis_url) as other:
        other.script_flush()
        for _ in range(3):
            caller.send(sha, SOURCE, [1, namespace], lambda _: None)
        caller._own.connection._sock.close()  # what the kernel does for a process that dies
        wait_until(lambda: other.get(namespace) == b"3", "all that was sent is done", seconds=5)


def test_a_live_state_works_after_its_connections_were_cut(live: LiveState, redis_url: str) -> None:
    assert live.beat_worker("w#1", ["q"], 1, 1_000_000, 0) == ()
    with redis.Redis.from_url(redis_url) as other:
        other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    runner = Runner("none", "none.0", "w#1/1", "q", "w#1")
    assert live.settle_branch(runner, [], call=1).verdict is Verdict.GONE


def test_an_exception_in_the_middle_of_a_call_does_not_give_its_reply_to_the_next(
    caller: ScriptCaller, redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = sha_of(redis_url)
    assert caller.call(sha, SOURCE, [1, namespace]) == 1

    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(caller._own.connection, "read_response", interrupted)
        with pytest.raises(KeyboardInterrupt):
            caller.call(sha, SOURCE, [1, namespace])
    answers = [caller.call(sha, SOURCE, [1, f"{namespace}:{number}"]) for number in range(3)]
    assert answers == [1, 1, 1], "the reply that was left unread would be 2"
