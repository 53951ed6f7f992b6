"""How much memory a run has: its process and all below it, what several share counted by shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def processes_of(pid: int) -> list[int]:
    """The process, and all that it and its children have started and that live."""
    found = [pid]
    for one in found:
        found.extend(_children(one))
    return found


def _children(pid: int) -> Iterator[int]:
    # A child belongs to the thread that started it. Whatever ends while it is looked at has none any more.
    with suppress(OSError):
        for task in list((PROC / str(pid) / "task").iterdir()):
            with suppress(OSError):
                yield from map(int, (task / "children").read_text().split())


def memory_bytes(pid: int, *, above: int) -> int:
    """Memory of a run.

    Args:
        pid: Of its process.
        above: What is to be told exactly. Shares are dear to count, so what cannot exceed this is told too high: as if
            nothing were shared.
    """
    processes = processes_of(pid)
    resident = sum(map(_resident_bytes, processes))
    return resident if resident <= above else sum(map(_share_bytes, processes))


def _resident_bytes(pid: int) -> int:
    with suppress(OSError, IndexError):
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def _share_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
