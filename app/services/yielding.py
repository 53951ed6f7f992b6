"""Runs let those go first who answer people: the API and Prefect beside them on the machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# A tenth of the others' share when all want the same core, and all of it when nobody else does.
NICENESS = 10
# Where the kernel shares by sessions, as it does outside of containers and services, niceness counts within one alone.
_OF_SESSION = Path("/proc/self/autogroup")
_TERMINAL = Path("/dev/tty")


def let_others_go_first() -> None:
    """Give this process and what it starts less of a core that others want too; its session as well. Again: no change.

    The session of a person's terminal is left as it is.
    """
    if os.getpriority(os.PRIO_PROCESS, 0) < NICENESS:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with suppress(OSError):
        if not _has_terminal():
            _OF_SESSION.write_text(str(NICENESS))


def _has_terminal() -> bool:
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
