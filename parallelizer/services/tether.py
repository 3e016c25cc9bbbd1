"""Starts one program that can't outlive the process that started it.

Run as a script (`python -I -S tether.py SIGNAL PARENT UID GID -- PROGRAM ARGUMENT…`) between `fork` and the program: it
drops root's rights where asked, asks the kernel to signal the program when its parent dies, and becomes the program.
It is a script and not a `preexec_fn`, because Python code between `fork` and `exec` of a process with threads can
deadlock. Imports nothing but the standard library.

The kernel counts the *thread* that started the program as its parent: start programs from the main thread.
Where there is no `prctl` (macOS) the program is started all the same; the next start finds and ends a leftover.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Become the program; does not return."""
    signal_number, parent, uid, gid = (int(value) for value in arguments[:4])
    program = arguments[5:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, which clears it.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(0)  # the parent died before the kernel knew of our wish
    os.execv(program[0], program)  # noqa: S606 - an argument list, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
