"""Starts a program whose life is tied to that of its parent: `leash.py PARENT_PID PROGRAM ARGUMENT…`.

It is a script of its own, run without the site's packages, for it lives for some milliseconds: the program takes its
place. Where the system has no such tie, the program is started all the same, and the watchdog alone ends it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # Asked to end, not killed: so it ends what it has started itself.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        # It died before the tie held.
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
