"""Direct runs: carried out in child processes of the service, a few at a time, queued fairly beyond that.

Rows decide, never what a process remembers: a run that is queued is found by whichever service looks first, and a child
goes on, and settles itself, when its service is gone.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.domain.errors import AutoloaderError, NotFoundError
from app.domain.events import EventLog
from app.domain.ingestions import Method, RunRecord
from app.domain.service import RetryPolicy, ServiceStore

log = EventLog(__name__)

# For so long nobody else starts a process for the same run: more than a process takes to begin.
CLAIM_S = 60.0
# How soon a child that ended, and a run that ended, is noticed; a run that has long been waited for is looked at less
# often: many wait together when Prefect is away.
POLL_S = 0.1
LONG_POLL_S = 1.0
POLL_SHARE = 0.1
# How soon a run is found that another process queued, or whose next attempt is due.
LOOK_S = 2.0


class Starter(Protocol):
    """Starts the process that carries a run out."""

    def start(self, run_id: str) -> int:
        """Begin it; its process id. It belongs to a session of its own, and lives on when we do not."""
        ...

    def has_ended(self, pid: int) -> bool:
        """Whether it has ended. Asked no more after that."""
        ...


class ChildProcesses:
    """Children of this process, by a command of the program."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], *, quiet: bool = False) -> None:
        """Run `command` with the run's id behind it.

        Args:
            command: Program and arguments.
            environ: What the child needs to know goes by this alone.
            quiet: Nobody reads what it writes; else it goes where this process's errors go.
        """
        self._command = tuple(command)
        self._environ = dict(environ)
        self._quiet = quiet

    def start(self, run_id: str) -> int:
        """Begin it."""
        streams = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
        if self._quiet:
            streams.insert(1, (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
        arguments = [*self._command, run_id]
        return os.posix_spawn(arguments[0], arguments, self._environ, file_actions=streams, setsid=True)

    def has_ended(self, pid: int) -> bool:
        """Whether it has ended."""
        try:
            return os.waitpid(pid, os.WNOHANG) != (0, 0)
        except ChildProcessError:
            return True


def next_in_turn(due: Sequence[RunRecord], served: Mapping[str, float]) -> RunRecord | None:
    """Of queued runs the one whose turn it is: of the ingestion that was served longest ago, the oldest first.

    Args:
        due: Queued runs, oldest first.
        served: When an ingestion was last given a process; those that never were go first.
    """
    return min(due, key=lambda run: served.get(run.ingestion_id, 0.0), default=None)


@dataclass
class DirectSettings:
    """How many at a time, and what becomes of those whose process dies."""

    at_once: int = 2
    retry: RetryPolicy = field(default_factory=RetryPolicy)


class DirectRunner:
    """Gives queued direct runs their processes. One for a service; used in its event loop."""

    def __init__(self, store: ServiceStore, starter: Starter, settings: DirectSettings) -> None:
        self._store = store
        self._starter = starter
        self._settings = settings
        self._children: dict[int, str] = {}
        self._served: dict[str, float] = {}
        self._nudged = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Take up what is queued, now and from now on."""
        if self._task is None:
            self._closing = False
            self._task = asyncio.create_task(self._serve(), name="direct-runs")

    async def close(self) -> None:
        """Begin no more. Children that are at work go on."""
        task, self._task = self._task, None
        if task is not None:
            # Not cancelled: a thread that is asking the database would go on, and outlive it.
            self._closing = True
            self._nudged.set()
            await task

    def nudge(self) -> None:
        """Look now for what is queued."""
        self._nudged.set()

    async def run(self, run_id: str, wait_s: float) -> RunRecord:
        """Wait for a queued run to end, `wait_s` seconds at most; the run as it is then.

        One that is queued again, for a later attempt, is not waited for.

        Raises:
            NotFoundError: There is no such run.
        """
        await self.start()
        self.nudge()
        began = time.monotonic()
        deadline = began + wait_s
        while True:
            run = await asyncio.to_thread(self._store.run, run_id)
            if run is None:
                raise NotFoundError(f"There is no run {run_id}.")
            now = time.monotonic()
            if run.is_over or run.next_attempt_at is not None or now >= deadline:
                return run
            pause_s = min(max(POLL_S, POLL_SHARE * (now - began)), LONG_POLL_S)
            await asyncio.sleep(min(pause_s, deadline - now))

    # --- the queue ------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        looked_at = 0.0
        while not self._closing:
            is_time = time.monotonic() - looked_at >= LOOK_S
            try:
                ended = await self._reap()
                if ended or is_time or self._nudged.is_set():
                    self._nudged.clear()
                    looked_at = time.monotonic()
                    await self._look()
            except AutoloaderError as error:
                log.warning("direct_runs_not_served", reason=str(error))
            await self._pause()

    async def _pause(self) -> None:
        timeout_s = POLL_S if self._children else LOOK_S
        try:
            await asyncio.wait_for(self._nudged.wait(), timeout_s)
        except TimeoutError:
            return

    async def _look(self) -> None:
        # Of the others Prefect has to be told, which whoever looks after them does when he settles them.
        await asyncio.to_thread(self._store.settle_dead_runs, self._settings.retry, method=Method.DIRECT)
        due = await asyncio.to_thread(self._store.due_runs, Method.DIRECT)
        while due and len(self._children) < self._settings.at_once:
            run = next_in_turn(due, self._served)
            if run is None:
                return
            due.remove(run)
            if await asyncio.to_thread(self._store.claim_run, run.id, for_s=CLAIM_S):
                self._start(run)

    def _start(self, run: RunRecord) -> None:
        self._served[run.ingestion_id] = time.monotonic()
        try:
            pid = self._starter.start(run.id)
        except OSError as error:
            # Its claim runs out, and then it is tried again.
            log.warning("direct_run_not_started", run_id=run.id, reason=error.strerror)
            return
        log.info("direct_run_started", run_id=run.id, ingestion_id=run.ingestion_id, pid=pid)
        self._children[pid] = run.id

    async def _reap(self) -> bool:
        """Forget children that ended; whether there were any."""
        ended = [pid for pid in self._children if self._starter.has_ended(pid)]
        for pid in ended:
            run_id = self._children.pop(pid)
            log.info("direct_run_process_ended", run_id=run_id, pid=pid)
            await asyncio.to_thread(self._store.note_not_begun, run_id, self._settings.retry)
        return bool(ended)
