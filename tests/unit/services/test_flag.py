"""A flag may be raised at any moment, above all by a signal that comes while the same thread is at work with it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from config.settings import load_settings
from parallelizer.services.flag import Flag
from parallelizer.services.stack import Stack, StackPlan


def interrupted(function: Callable[[], object], moment: int, handler: Callable[[], object]) -> bool:
    """Call `function`, and `handler` before its instruction number `moment`, where Python may run a signal's handler.

    Returns: whether there was such an instruction.
    """
    left = moment

    def trace(frame: FrameType, event: str, _value: Any) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if left == 0:
            left = -1
            handler()
        return trace

    def run() -> None:
        sys.settrace(trace)
        try:
            function()
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), f"blocked for ever by a signal before instruction {moment}"
    return left < 0


def test_a_signal_at_any_moment_of_a_wait_raises_the_flag_and_blocks_nothing() -> None:
    moment, flag = 1, Flag()
    while interrupted(partial(flag.wait, 0.001), moment, flag.set):
        assert flag.is_set()
        assert flag.wait(0)
        moment, flag = moment + 1, Flag()
    assert moment > 5


def test_a_second_request_at_any_moment_of_the_first_blocks_nothing() -> None:
    def new() -> Stack:
        return Stack(load_settings(), StackPlan(), lambda _: None, lambda _name, _line: None)

    moment, stack = 1, new()
    while interrupted(stack.request_stop, moment, stack.request_stop):
        assert stack.stop_requested
        moment, stack = moment + 1, new()
    assert moment > 5


def test_who_waits_goes_on_when_another_thread_raises_the_flag() -> None:
    flag = Flag()
    answers: list[bool] = []
    waiting = [threading.Thread(target=lambda: answers.append(flag.wait(60))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    flag.set()
    for thread in waiting:
        thread.join(10)
    assert answers == [True] * 3


def test_a_wait_for_a_flag_that_nobody_raises_ends() -> None:
    flag = Flag()
    assert not flag.wait(0.01)
    assert not flag.is_set()
