"""What the processes of a world take: memory over a time, and CPU while nothing is to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from bench.measuring import process_memory_bytes, tree, tree_memory_bytes

LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Memory:
    """Of one process, proportional (PSS)."""

    start_bytes: int
    peak_bytes: int
    end_bytes: int


class MemoryWatch(threading.Thread):
    """Looks at processes every second, from `start` until `ended`.

    Args:
        processes: Name → process id, of those that stay.
    """

    def __init__(self, processes: Mapping[str, int]) -> None:
        super().__init__(daemon=True)
        self.peak_of_all_bytes = 0
        self._processes = processes
        self._first: dict[str, int] = {}
        self._peak: dict[str, int] = {}
        self._over = threading.Event()

    def run(self) -> None:
        """Look until stopped."""
        self._first = self._look()
        while not self._over.wait(LOOK_EVERY_S):
            self._look()
            self.peak_of_all_bytes = max(self.peak_of_all_bytes, memory_of(self._processes))

    def _look(self) -> dict[str, int]:
        now = {name: process_memory_bytes(pid) for name, pid in self._processes.items()}
        for name, found in now.items():
            self._peak[name] = max(found, self._peak.get(name, 0))
        return now

    def ended(self) -> dict[str, Memory]:
        """Stop looking: what each process had, and has now; 0 for one that is gone."""
        self._over.set()
        self.join()
        last = self._look()
        return {name: Memory(self._first[name], self._peak[name], last[name]) for name in self._processes}


def memory_of(processes: Mapping[str, int]) -> int:
    """Of these processes and all below them, each counted once."""
    roots = set(processes.values())
    below = {pid for root in roots for pid in tree(root) if pid != root}
    return sum(tree_memory_bytes(root) for root in roots - below)


def cpu_shares(processes: Mapping[str, int], seconds: float) -> dict[str, float]:
    """Name → share of a core that the process and all below it take in the next seconds."""
    before = {name: _cpu_s(pid) for name, pid in processes.items()}
    time.sleep(seconds)
    return {name: max(0.0, _cpu_s(pid) - before[name]) / seconds for name, pid in processes.items()}


def _cpu_s(pid: int) -> float:
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    # What has ended meanwhile counts by its parent.
    return sum(one.user + one.system for one in times) + times[0].children_user + times[0].children_system
