"""What the engine's own threads have in common, also where they are greenlets (Celery's pool gevent)."""

from __future__ import annotations

import os
import signal
import threading


def leave_signals_to_main() -> None:
    """Signals of time limits are for the thread that runs users' code: block them in this one.

    Where threads are greenlets, all of them run in the process's main thread, which keeps its signals.
    """
    if threading.get_native_id() != os.getpid():
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGALRM, signal.SIGUSR1))
