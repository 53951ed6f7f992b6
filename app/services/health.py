"""How the service is: what the last beats said. Asking for it calls nothing, and waits for nobody."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from app.domain.errors import AutoloaderError

# A beat of each part comes so often; one that is so late that two were missed is no news any more.
BEAT_S = 5.0
STALE_S = 10.0


@dataclass(frozen=True)
class Part:
    """A part as its last beat told it.

    Args:
        detail: What is wrong with it, or should be known of it; empty where nothing is.
        facts: More of it that a person may want to know.
    """

    up: bool = False
    detail: str = "It was not asked yet."
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Health:
    """The service as of now."""

    database: Part
    prefect: Part

    @property
    def is_healthy(self) -> bool:
        """Whether it can do its work; scheduling is not needed for that."""
        return self.database.up


class HealthBoard:
    """Where each part's beat is written, by any thread, and read by any."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Nothing is known yet."""
        self._now = now
        self._lock = threading.Lock()
        self._parts: dict[str, tuple[float, Part]] = {}

    def database(self, part: Part) -> None:
        """Write how the database is."""
        self._write("database", part)

    def prefect(self, part: Part) -> None:
        """Write how the scheduler is: `up` where it answers and schedules."""
        self._write("prefect", part)

    def read(self) -> Health:
        """What the last beats said; a part that is silent for too long is down."""
        return Health(self._read("database"), self._read("prefect"))

    def _write(self, name: str, part: Part) -> None:
        with self._lock:
            self._parts[name] = (self._now(), part)

    def _read(self, name: str) -> Part:
        with self._lock:
            at, part = self._parts.get(name, (self._now(), Part()))
        age = self._now() - at
        # A beat that is asked for and does not come, as by a disk that hangs.
        return part if age <= STALE_S else Part(detail=f"Nothing was heard of it for {age:.0f} s.")


async def watch_database(ping: Callable[[], None], board: HealthBoard, *, beat_s: float = BEAT_S) -> None:
    """Write every beat how the database is, until cancelled."""
    # A thread of its own: all others may be waiting for their turn to write, which says nothing of the database.
    threads = ThreadPoolExecutor(1, thread_name_prefix="health")
    try:
        while True:
            await beat_database(ping, board, threads)
            await asyncio.sleep(beat_s)
    finally:
        threads.shutdown(wait=False)


async def beat_database(ping: Callable[[], None], board: HealthBoard, threads: Executor | None = None) -> None:
    """Ask the database once, in a thread, and write what came of it."""
    try:
        await asyncio.get_running_loop().run_in_executor(threads, ping)
    except AutoloaderError as error:
        board.database(Part(detail=error.message))
    else:
        board.database(Part(up=True, detail=""))
