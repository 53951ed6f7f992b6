"""What the system calls the processes of a worker, beside their command lines: `ps -o comm`, `top`.

The worker forks what its runs are forked from, so that all of them have its command line.
"""

from __future__ import annotations

import ctypes

# The system keeps 15 bytes.
WORKER, FORK_SERVER, RUN = "autoload-worker", "autoload-forks", "autoload-run"
_PR_SET_NAME = 15


def show_as(name: str) -> None:
    """Have this process called so. Called by its main thread."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
