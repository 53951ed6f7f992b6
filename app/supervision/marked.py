"""Finds the processes of a tree wherever they have got to: by a mark in the environment that each inherits.

A process group or a parent's id would not do: a run has a session of its own, and who lost his parent is given another.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

VARIABLE = "AUTOLOADER_UP"
PROC = Path("/proc")
LOOK_EVERY_S = 0.05


def marked_pids(mark: str) -> list[int]:
    """Ids of live processes with that mark, less this one's."""
    return [pid for pid in (_listed() if PROC.exists() else _asked(mark)) if pid != os.getpid() and _has(pid, mark)]


def end_marked(mark: str, *, within_s: float) -> bool:
    """Ask all of them to end, and kill those that have not after `within_s`; whether all are gone."""
    asked: set[int] = set()
    deadline = time.monotonic() + within_s
    while (pids := marked_pids(mark)) and time.monotonic() < deadline:
        # One that came up meanwhile is asked too.
        send(set(pids) - asked, signal.SIGTERM)
        asked.update(pids)
        time.sleep(LOOK_EVERY_S)
    return kill_marked(mark, within_s=within_s)


def kill_marked(mark: str, *, within_s: float) -> bool:
    """Kill all of them, again until none is left or `within_s` is over; whether all are gone."""
    deadline = time.monotonic() + within_s
    while pids := marked_pids(mark):
        if time.monotonic() > deadline:
            return False
        send(pids, signal.SIGKILL)
        time.sleep(LOOK_EVERY_S)
    return True


def send(pids: Iterable[int], number: int) -> None:
    """Send a signal to each that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def children_of(parent: int) -> list[int]:
    """Ids of its children that live, as far as the system tells."""
    return [pid for pid in (_listed() if PROC.exists() else []) if _parent(pid) == parent]


def _listed() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]  # noqa: PTH208 - half the time of Path's


def _has(pid: int, mark: str) -> bool:
    if not PROC.exists():
        return True
    try:
        # What a zombie was given is gone; it only waits for its parent.
        return f"{VARIABLE}={mark}".encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _parent(pid: int) -> int | None:
    try:
        # The name stands in parentheses and may hold anything.
        state, parent = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else int(parent)


def _asked(mark: str) -> list[int]:
    """The same where the system has no such folder."""
    import psutil  # noqa: PLC0415 - a watchdog waits for a long time, and may as well be small

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(VARIABLE) == mark:
                found.append(process.pid)
    return found
