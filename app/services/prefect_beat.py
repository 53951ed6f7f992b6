"""Keeps Prefect in view: connects when it comes, reconciles then and every minute, and says how it is."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from app.domain.errors import AutoloaderError, SchedulerUnavailableError
from app.domain.events import EventLog
from app.domain.ingestions import Method
from app.domain.ledger import Leases
from app.domain.runs import Lease, LeaseHolder, Owner
from app.domain.service import RetryPolicy
from app.services.reconciler import PassReport, Reconciler, Rows

log = EventLog(__name__)

BEAT_S = 2.0
RECONCILE_S = 60.0
# A pass that could not do everything is followed by another one so soon.
SOON_S = 5.0
# Of several API processes on one database the one with this lease reconciles.
LEASE_ID = "reconciler"
LEASE_S = 30.0
PROCESS_POOL = "process"
SILENT = "Prefect answers, but schedules nothing: no flow run is made ahead. Look into the log of the Prefect server."
NO_WORKER = "No worker is online for the work pool."
OFF = "PREFECT_API_URL is not set: scheduling is off, runs are direct."

Tell = Callable[[bool, str, Mapping[str, Any]], None]


class Watched(Protocol):
    """What of `PrefectService` is looked at."""

    trouble: str
    pool_type: str | None

    async def ping(self) -> bool:
        """Whether it answers now."""
        ...

    def missed(self) -> bool:
        """Whether it was not told something since this was asked last."""
        ...

    async def has_runs_to_come(self) -> bool:
        """Whether it schedules."""
        ...

    async def workers_online(self) -> list[str]:
        """Names of the workers of the pool."""
        ...

    async def unserved_queues(self) -> list[str]:
        """Names of our work queues that no worker takes runs from."""
        ...


async def _nothing() -> None:
    """There is nothing to see to."""


class PrefectBeat:
    """Two loops beside the API, which never wait for each other: a long pass leaves the beat as it is."""

    def __init__(
        self,
        prefect: Watched,
        reconciler: Reconciler,
        leases: Leases,
        owner: Owner,
        *,
        tell: Tell,
        ensure_worker: Callable[[], Awaitable[list[str]]] | None,
        ensure_callback: Callable[[], Awaitable[None]] = _nothing,
        beat_s: float = BEAT_S,
        reconcile_s: float = RECONCILE_S,
        soon_s: float = SOON_S,
    ) -> None:
        self._prefect = prefect
        self._callback = ensure_callback
        self._reconciler = reconciler
        self._leases = leases
        self._owner = owner
        self._tell = tell
        self._workers = ensure_worker or prefect.workers_online
        self._beat_s = beat_s
        self._reconcile_s = reconcile_s
        self._soon_s = soon_s
        self._name = uuid.uuid4().hex
        self._is_up = False
        # How many passes in a row found that Prefect had made nothing ahead.
        self._silent_passes = 0
        self._came_back = asyncio.Event()
        self.last_pass: PassReport | None = None

    async def run(self) -> None:
        """Beat and reconcile until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_forever("prefect_beat", self.beat, self._rest))
            tasks.create_task(_forever("run_settling", self.settle, self._rest))
            tasks.create_task(_forever("reconciling", self.reconcile, self._until_next_pass))

    async def _rest(self) -> None:
        await asyncio.sleep(self._beat_s)

    async def _until_next_pass(self) -> None:
        is_whole = self.last_pass is None or not (self.last_pass.left or self.last_pass.failed)
        try:
            async with asyncio.timeout(self._reconcile_s if is_whole else self._soon_s):
                await self._came_back.wait()
        except TimeoutError:
            return

    async def beat(self) -> None:
        """Ask once whether Prefect is there, see to the worker, and tell."""
        is_up = await self._prefect.ping()
        news = (await self._news()) if is_up else (False, self._prefect.trouble, {})
        if is_up and not self._is_up:
            log.info("prefect_connected")
            self._came_back.set()
        if is_up and self._prefect.missed():
            # What it did not hear it hears by the next pass, which need not wait for its minute.
            self._came_back.set()
        if self._is_up and not is_up:
            log.warning("prefect_lost", reason=self._prefect.trouble)
        self._is_up = is_up
        self._tell(*news)

    @property
    def _is_silent(self) -> bool:
        return self._silent_passes > 1

    async def _news(self) -> tuple[bool, str, Mapping[str, Any]]:
        """Of a Prefect that answers: whether it is of use, and what should be known of it."""
        if self._is_silent:
            return False, SILENT, {}
        try:
            workers = await self._workers()
            unserved = await self._prefect.unserved_queues() if workers else []
        except SchedulerUnavailableError as error:
            return False, str(error), {}
        facts = {"workers": workers, "pool_type": self._prefect.pool_type, "unserved_queues": unserved}
        return True, " ".join(_remarks(workers, unserved, self._prefect.pool_type)), facts

    async def settle(self) -> None:
        """Settle runs whose process died, where this process is the one that reconciles.

        Where Prefect does not answer this process the lease is given back: it may answer another one.
        """
        lease = await self._taken()
        if lease is None:
            return
        await self._reconciler.settle_runs(PassReport())
        if not self._is_up:
            await asyncio.to_thread(self._leases.release, lease)

    async def reconcile(self) -> None:
        """One pass, where Prefect is there and this process is the one that reconciles."""
        self._came_back.clear()
        if not self._is_up or await self._taken() is None:
            return
        report = await self._reconciler.run_pass()
        await self._ensure_callback()
        self.last_pass = report
        is_silent = report.due_soon > 0 and report.is_quiet and not await self._prefect.has_runs_to_come()
        self._silent_passes = self._silent_passes + 1 if is_silent else 0

    async def _ensure_callback(self) -> None:
        try:
            await self._callback()
        except SchedulerUnavailableError as error:
            # Without it the other ways are enough; the next pass tries again.
            log.info("prefect_callback_not_made", reason=str(error))

    async def _taken(self) -> Lease | None:
        """The lease of the one that reconciles, taken or renewed; None where another process has it."""
        taken = await asyncio.to_thread(self._leases.acquire, LEASE_ID, self._name, self._owner, LEASE_S)
        return None if isinstance(taken, LeaseHolder) else taken


def _remarks(workers: Sequence[str], unserved: Sequence[str], pool_type: str | None) -> Iterator[str]:
    if not workers:
        yield NO_WORKER
    for queue in unserved:
        yield f"No worker takes runs from the work queue {queue}: those that belong there wait."
    if pool_type != PROCESS_POOL:
        yield f"The work pool is there already, with the type {pool_type}; it is used."


class WithoutPrefect:
    """What is left to do where scheduling is off: runs that were queued for Prefect are carried out directly."""

    def __init__(self, rows: Rows, retry: RetryPolicy, *, tell: Tell, beat_s: float = BEAT_S) -> None:
        self._rows = rows
        self._retry = retry
        self._tell = tell
        self._beat_s = beat_s

    async def run(self) -> None:
        """Until cancelled."""
        await _forever("without_prefect", self.beat, lambda: asyncio.sleep(self._beat_s))

    async def beat(self) -> None:
        """Once."""
        self._tell(False, OFF, {})  # noqa: FBT003 - as every beat tells
        # One that a worker had begun when scheduling was still on.
        await asyncio.to_thread(self._rows.settle_dead_runs, self._retry)
        for run in await asyncio.to_thread(self._rows.due_runs, Method.PREFECT):
            await asyncio.to_thread(self._rows.reroute_run, run.id, Method.DIRECT)


async def _forever(name: str, step: Callable[[], Awaitable[None]], rest: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await step()
        except AutoloaderError as error:
            log.warning("background_step_failed", step=name, code=error.code, reason=str(error))
        except Exception:
            # The outermost frame of a task that nobody awaits: a defect must not end scheduling for good.
            log.exception("background_step_failed", step=name)
        await rest()
