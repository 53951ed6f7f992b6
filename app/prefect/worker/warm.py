"""The worker as Prefect knows it: takes flow runs of a pool, and has each carried out by a process of its own."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import AwaitingRetry, Cancelled, Failed
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from app.domain.errors import MemoryLimitError
from app.domain.events import EventLog
from app.prefect.worker.admission import Candidate, Queues, admitted
from app.prefect.worker.forks import Fork, ForkServer
from app.prefect.worker.memory import memory_bytes
from app.services.prefect_plans import FLOW_NAME
from app.services.vigil import GIVE_BACK_SIGNAL
from app.services.worker_runs import OfFlowRun, WorkerRuns

if TYPE_CHECKING:
    from anyio.abc import TaskStatus
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.client.schemas.responses import WorkerFlowRunResponse

log = EventLog(__name__)

LOOK_FOR_CANCELLING_S = 1.0
LOOK_AT_MEMORY_S = 0.25
# A run that was asked to end, or to hand itself over, and does not, is killed after so long.
CANCEL_S = 15.0
HAND_OVER_S = 4.0
ASK_AGAIN_S = 0.5
# What is left to say to Prefect when all processes are gone.
LAST_WORDS_S = 3.0
GIB = 1 << 30
_SERVER_ERROR = 500


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker works.

    Args:
        pool: The work pool that it serves.
        queues: Those of its queues that it serves; empty: all.
        name: What Prefect calls it.
        limit: Runs at once.
        special: Names of the queues that are not like any other.
        memory_limit_gb: What a run may have; None: as much as it takes.
        hand_over_s: How long runs may take to hand themselves over when the worker ends.
        last_words_s: How long it then may take to tell Prefect.
    """

    pool: str
    queues: tuple[str, ...]
    name: str
    limit: int
    special: Queues
    memory_limit_gb: float | None = None
    hand_over_s: float = HAND_OVER_S
    last_words_s: float = LAST_WORDS_S


@dataclass
class AtWork:
    """A flow run, the process that carries it out, and what it was told."""

    which: OfFlowRun
    flow_run: FlowRun
    fork: Fork
    cancelled_at: float | None = None
    is_handed_over: bool = False
    too_large: MemoryLimitError | None = None


class WarmWorker(BaseWorker[BaseJobConfiguration, BaseVariables, BaseWorkerResult]):
    """Serves one pool until its `start` is cancelled. Of the base class only what every worker has is used."""

    type = "process"

    @classmethod
    def __dispatch_key__(cls) -> str:
        """The name in the library's own list of kinds, where `process` is the stock worker's."""
        return "autoloader"

    def __init__(self, settings: WorkerSettings, forks: ForkServer, runs: WorkerRuns) -> None:
        """Serve with `forks`, which somebody keeps running; `runs` are our own rows."""
        super().__init__(
            work_pool_name=settings.pool,
            work_queues=list(settings.queues) or None,
            name=settings.name,
            limit=settings.limit,
            create_pool_if_not_found=False,
        )
        self._settings = settings
        self._forks = forks
        self._rows = runs
        self._at_work: dict[UUID, AtWork] = {}
        self._is_draining = False
        self._is_alone = False
        self._is_away = False
        self._queue_names: dict[UUID, str] = {}
        self._flow_names: dict[UUID, str] = {}
        # For whoever asks how it went.
        self.begun = 0
        self.handed_over = 0

    @property
    def at_work(self) -> list[AtWork]:
        """The runs at work."""
        return list(self._at_work.values())

    # --- what comes in --------------------------------------------------------------------------------------------

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Begin what is due. Prefect's absence is told of once, and borne: the base class would end after minutes."""
        if self._is_draining or not self._forks.is_ready:
            return []
        try:
            begun = await super().get_and_submit_flow_runs()
        except httpx.HTTPError as error:
            self._note_away(error)
            return []
        except ObjectNotFound:
            # The pool is gone, as after the loss of the server's database; the service makes it again.
            return []
        if self._is_away:
            self._is_away = False
            log.info("prefect_connected")
        return begun

    async def sync_with_backend(self) -> None:
        """Tell Prefect that this worker is there."""
        try:
            await super().sync_with_backend()
        except httpx.HTTPError as error:
            self._note_away(error)

    def _note_away(self, error: httpx.HTTPError) -> None:
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < _SERVER_ERROR:
            # It answers, and refuses us: that does not pass by itself.
            raise error
        if not self._is_away:
            self._is_away = True
            log.warning("prefect_lost", reason=type(error).__name__)

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        found = await super()._get_scheduled_flow_runs()
        due = [(one, await self._candidate(one)) for one in found if await self._is_ours(one.flow_run.flow_id)]
        is_idle = self.limiter.borrowed_tokens == 0
        chosen = admitted(
            [candidate for _, candidate in due],
            self._settings.special,
            is_idle=is_idle,
            is_alone=self._is_alone,
            now=datetime.now(UTC),
        )
        high = {candidate.id for _, candidate in due if candidate.queue == self._settings.special.high_memory}
        self._is_alone = bool(high & set(chosen)) or (self._is_alone and not is_idle)
        return [one for one, candidate in due if candidate.id in chosen]

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            await super()._submit_run(flow_run)
        except httpx.HTTPError as error:
            # It has not begun, and is taken again. The base class would end, and every run at work with it.
            log.warning("flow_run_not_begun", flow_run_id=str(flow_run.id), reason=type(error).__name__)
            self._release_limit_slot(flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)

    async def _candidate(self, found: WorkerFlowRunResponse) -> Candidate:
        if found.work_queue_id not in self._queue_names:
            queues = await self.client.read_work_queues(work_pool_name=self._settings.pool)
            self._queue_names = {one.id: one.name for one in queues}
        run = found.flow_run
        due_at = run.next_scheduled_start_time or run.expected_start_time or datetime.now(UTC)
        return Candidate(run.id, self._queue_names.get(found.work_queue_id), due_at)

    async def _is_ours(self, flow_id: UUID) -> bool:
        """Whether it is the flow that is preloaded here. Others' are left to others' workers."""
        if flow_id not in self._flow_names:
            name = self._flow_names[flow_id] = (await self.client.read_flow(flow_id)).name
            if name != FLOW_NAME:
                log.warning("flow_is_not_ours", flow=name, remedy="Start `prefect worker start` for it.")
        return self._flow_names[flow_id] == FLOW_NAME

    # --- one run ----------------------------------------------------------------------------------------------------

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,
        task_status: TaskStatus[int] | None = None,
    ) -> BaseWorkerResult:
        """Have it carried out; returns when its process is gone and Prefect knows why."""
        started: Callable[[Any], None] = (lambda _pid: None) if task_status is None else task_status.started
        if self._is_draining:
            await self._set_state(flow_run.id, _again("The worker ends."))
            started(self._settings.name)
            return _Result(identifier=self._settings.name, status_code=0)
        environ = {name: value for name, value in configuration.env.items() if value is not None}
        fork = await self._forks.fork(flow_run.model_dump_json(), environ)
        which = OfFlowRun(str(flow_run.id), flow_run.parameters)
        at_work = self._at_work[flow_run.id] = AtWork(which, flow_run, fork)
        self.begun += 1
        log.info("flow_run_forked", flow_run_id=which.flow_run_id, pid=fork.pid, **_ids(flow_run.parameters))
        started(f"{socket.gethostname()}:{fork.pid}")
        try:
            code = await fork.ended
        finally:
            del self._at_work[flow_run.id]
        log.info("flow_run_process_ended", flow_run_id=which.flow_run_id, pid=fork.pid, code=code)
        return _Result(identifier=str(fork.pid), status_code=await self._told(at_work, code))

    async def _told(self, at_work: AtWork, code: int) -> int:
        """See to it that our row and Prefect know how it ended; 0 unless the base class is to call it a crash."""
        which = at_work.which
        if at_work.too_large is not None:
            await asyncio.to_thread(self._rows.fail, which, at_work.too_large)
            # That its process is gone may have been seen, and told, before anybody knew why.
            crashed = frozenset({StateType.CRASHED})
            return await self._unless_final(at_work, Failed(message=str(at_work.too_large)), but=crashed)
        if at_work.cancelled_at is not None:
            if not await asyncio.to_thread(self._rows.cancel, which):
                log.info("run_of_cancelled_flow_run_not_found", flow_run_id=which.flow_run_id)
            return await self._unless_final(at_work, Cancelled(message="Cancelled while it was at work."))
        if code != 0:
            await asyncio.to_thread(self._rows.settle, which)
            return code
        if at_work.is_handed_over:
            return await self._unless_final(at_work, _again("The worker ended; another one goes on with it."))
        return 0

    async def _unless_final(
        self, at_work: AtWork, state: State[Any], *, but: frozenset[StateType] = frozenset()
    ) -> int:
        """Set its state where its own process did not come to say how it ended; a final one of `but` gives way too."""
        flow_run_id = at_work.flow_run.id
        try:
            found = await self.client.read_flow_run(flow_run_id)
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("flow_run_not_read", flow_run_id=str(flow_run_id), reason=type(error).__name__)
            return 0
        if found.state is None or not found.state.is_final() or found.state.type in but:
            await self._set_state(flow_run_id, state)
            self.handed_over += at_work.is_handed_over
        return 0

    async def _set_state(self, flow_run_id: UUID, state: State[Any]) -> None:
        try:
            await self.client.set_flow_run_state(flow_run_id, state, force=True)
        except (httpx.HTTPError, PrefectException) as error:
            # The reconciler ends what nobody is at work on.
            log.warning("flow_run_not_told", flow_run_id=str(flow_run_id), reason=type(error).__name__)

    async def kill_infrastructure(
        self,
        infrastructure_pid: str,
        configuration: BaseJobConfiguration,  # noqa: ARG002 - the base class gives it
        grace_seconds: int = 30,  # noqa: ARG002
    ) -> None:
        """Kill a run that had not begun its work when it was cancelled."""
        for at_work in self.at_work:
            if infrastructure_pid == f"{socket.gethostname()}:{at_work.fork.pid}":
                at_work.fork.kill()

    # --- what is watched --------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Cancel what Prefect wants cancelled, and end what takes too much memory, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_cancelling())
            if self._settings.memory_limit_gb is not None:
                tasks.create_task(self._watch_memory(self._settings.memory_limit_gb))

    async def _watch_cancelling(self) -> None:
        while True:
            await asyncio.sleep(LOOK_FOR_CANCELLING_S)
            if not self._at_work:
                continue
            try:
                cancelling = await self._cancelling()
            except (httpx.HTTPError, PrefectException):
                # That Prefect is away is told elsewhere.
                continue
            for at_work in self.at_work:
                if at_work.flow_run.id in cancelling:
                    await self._cancel(at_work)

    async def _cancelling(self) -> set[UUID]:
        wanted = FlowRunFilter(
            id=FlowRunFilterId(any_=list(self._at_work)),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING])),
        )
        return {one.id for one in await self.client.read_flow_runs(flow_run_filter=wanted)}

    async def _cancel(self, at_work: AtWork) -> None:
        """Ask for its end in our row, as our own API does: its process looks there. What does not obey is killed."""
        is_new = at_work.cancelled_at is None
        at_work.cancelled_at = at_work.cancelled_at or time.monotonic()
        has_row = await asyncio.to_thread(self._rows.cancel, at_work.which)
        if is_new:
            log.info("flow_run_cancelling", flow_run_id=at_work.which.flow_run_id, has_row=has_row)
        if time.monotonic() - at_work.cancelled_at > CANCEL_S:
            at_work.fork.kill()

    async def _watch_memory(self, limit_gb: float) -> None:
        limit = int(limit_gb * GIB)
        while True:
            await asyncio.sleep(LOOK_AT_MEMORY_S)
            for at_work in self.at_work:
                has = await asyncio.to_thread(memory_bytes, at_work.fork.pid, above=limit)
                if has > limit and not at_work.fork.ended.done():
                    at_work.too_large = MemoryLimitError(
                        f"The run needed {has / GIB:.2f} GB of memory, its limit is {limit_gb:g} GB, and it was ended."
                    )
                    log.warning("run_too_large", flow_run_id=at_work.which.flow_run_id, bytes=has, limit=limit)
                    at_work.fork.kill()

    # --- the end ----------------------------------------------------------------------------------------------------

    async def drain(self, grace_s: float, hurry: asyncio.Event) -> None:
        """Begin nothing more; let runs end within `grace_s`, have the others handed over. `hurry` ends them at once."""
        self._is_draining = True
        await self._until_idle(grace_s, hurry)
        deadline = time.monotonic() + self._settings.hand_over_s
        while self._at_work and time.monotonic() < deadline and not hurry.is_set():
            for at_work in self.at_work:
                at_work.is_handed_over = True
                # Again and again: it is not heard before the run's work has begun.
                at_work.fork.tell(signal.Signals(GIVE_BACK_SIGNAL))
            await self._until_idle(ASK_AGAIN_S, hurry)
        for at_work in self.at_work:
            log.warning("run_killed", flow_run_id=at_work.which.flow_run_id, pid=at_work.fork.pid)
            at_work.fork.kill()
        await self._until_idle(self._settings.last_words_s, asyncio.Event())

    async def _until_idle(self, seconds: float, hurry: asyncio.Event) -> None:
        deadline = time.monotonic() + seconds
        while self._is_busy and time.monotonic() < deadline and not hurry.is_set():  # noqa: ASYNC110 - of two counts
            await asyncio.sleep(0.05)

    @property
    def _is_busy(self) -> bool:
        return bool(self._at_work) or (self.is_setup and self.limiter.borrowed_tokens > 0)


class _Result(BaseWorkerResult):
    """How a process ended."""


def _again(message: str) -> State[Any]:
    return AwaitingRetry(scheduled_time=datetime.now(UTC), message=message)


def _ids(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: parameters[name] for name in ("ingestion_id", "run_id") if parameters.get(name)}
