"""How an exception is raised in code that another thread runs.

In the main thread by a signal, which also ends a call that waits, such as `time.sleep`, and is seen by code in C that
looks for signals, such as a regular expression. In any other thread by the interpreter, when it next runs Python: a
call that waits in C is not ended by it, and has it when it returns. What was raised and has not landed when the call
ends is taken back, so nothing of it reaches the engine.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Protocol

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)
_set_async_exc.restype = ctypes.c_int


class Raiser(Protocol):
    """Raises in one thread."""

    def arm(self, seconds: float, error: type[BaseException]) -> bool:
        """Raise it there by itself after so many seconds, unless it is taken back before; False: it can't."""

    def throw(self, error: type[BaseException]) -> None:
        """Raise it there, soon; called by another thread, while the call's lock is held."""

    def throw_again(self) -> None:
        """See to it that what was thrown lands, where it may be missed; called as `throw` is."""

    def take_back(self) -> None:
        """Nothing lands from now on; called by the thread itself, while the call's lock is held."""


class _TakenBack(BaseException):
    """Lands in place of what was thrown and has not landed."""


class ThreadRaiser:
    """Raises in the thread that makes it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def arm(self, seconds: float, error: type[BaseException]) -> bool:
        del seconds, error
        return False

    def throw(self, error: type[BaseException]) -> None:
        _set_async_exc(self._thread, error)

    def throw_again(self) -> None:
        """It is not missed."""

    def take_back(self) -> None:
        # With NULL, which is there for this, CPython goes on to look for what was thrown, in each thread at each call
        # and each turn of a loop; and code that 3.11 traces (for a debugger or coverage) never gets past that look.
        with contextlib.suppress(_TakenBack):
            _set_async_exc(self._thread, _TakenBack)
            for _ in range(100):  # it lands here at the latest, or it did in a finalizer that ran just now
                pass


class MainRaiser:
    """Raises in the main thread, which makes it; the timer is the kernel's, which needs no thread of ours to run.

    Args: land: whether user code runs there just now; it is told of what lands.
    """

    def __init__(self, land: Callable[[type[BaseException]], bool]) -> None:
        self._thread = threading.get_ident()
        self._land = land
        self._thrown: type[BaseException] | None = None
        signal.signal(signal.SIGALRM, self._handle)

    def arm(self, seconds: float, error: type[BaseException]) -> bool:
        self._thrown = error
        signal.setitimer(signal.ITIMER_REAL, seconds)
        return True

    def throw(self, error: type[BaseException]) -> None:
        self._thrown = error
        self.throw_again()

    def throw_again(self) -> None:
        # a signal that comes just before a wait begins does not end that wait
        if self._thrown is not None:
            signal.pthread_kill(self._thread, signal.SIGALRM)

    def take_back(self) -> None:
        self._thrown = None
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        error = self._thrown
        if error is not None and self._land(error):
            self._thrown = None
            raise error
