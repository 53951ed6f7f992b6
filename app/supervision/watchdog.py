"""Ends what is left of a tree whose head is gone: `python -m app.supervision.watchdog MARK`.

Standard input is a pipe that only the head holds the other end of: when it ends, the head has ended, however that was.
"""

from __future__ import annotations

import os
import signal
import sys

from app.supervision.marked import end_marked

STDIN = 0
GRACE_S = 3.0
PIECE = 64


def main() -> None:
    """Wait for the end, then see to it that nothing of the tree goes on."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # It ends when there is nothing left to watch, and not before.
        signal.signal(number, signal.SIG_IGN)
    while os.read(STDIN, PIECE):
        pass
    end_marked(sys.argv[1], within_s=GRACE_S)


if __name__ == "__main__":
    main()
