"""Makes Prefect equal to our database, and tells each of the other's dead. A thin shell around `reconciling`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

from app.domain.errors import InvalidFieldError, RunOverError, SchedulerUnavailableError
from app.domain.events import EventLog
from app.domain.ingestions import Deployment, FlowRun, Ingestion, IngestionStatus, Method, RunRecord
from app.domain.service import RetryPolicy
from app.services.prefect_plans import DeploymentPlan, FoundDeployment, order_of
from app.services.reconciling import (
    Action,
    Bury,
    Forget,
    Make,
    Note,
    Remove,
    Wanted,
    dead_flow_runs,
    differences,
    is_cancelled_there,
    is_to_be_given_again,
    is_to_go_without,
)
from app.services.schedules import slots

log = EventLog(__name__)

# What a Prefect server bears beside its work, one after the other: it is one process, where more at once wait for each
# other.
A_SECOND = 5.0
A_DAY = timedelta(days=1)


class Rows(Protocol):
    """What of our database is needed here; `domain.service` has the promises."""

    def ingestions_to_schedule(self) -> list[Ingestion]:
        """Every ingestion that has a schedule, a deployment or a tombstone."""
        ...

    def ingestion(self, ingestion_id: str, tenant: str | None = None, *, deleted: bool = False) -> Ingestion | None:
        """The ingestion."""
        ...

    def set_deployment(self, ingestion_id: str, deployment: Deployment | None) -> bool:
        """Note what the scheduler was given; False where the ingestion is gone."""
        ...

    def remove_ingestion(self, ingestion_id: str) -> None:
        """Forget a tombstone."""
        ...

    def settle_dead_runs(self, retry: RetryPolicy, ingestion_id: str | None = None) -> list[RunRecord]:
        """Settle every run whose process is gone."""
        ...

    def due_runs(self, method: Method) -> list[RunRecord]:
        """Queued runs that are due."""
        ...

    def open_runs(self, method: Method) -> list[RunRecord]:
        """Runs that are queued or at work."""
        ...

    def request_cancel(self, run_id: str) -> RunRecord:
        """Ask for a run's end."""
        ...

    def run(self, run_id: str) -> RunRecord | None:
        """The run of that id."""
        ...

    def run_of_flow_run(self, flow_run_id: str) -> RunRecord | None:
        """The run that the flow run carries out."""
        ...

    def now(self) -> datetime:
        """The time by the database's clock."""
        ...

    def is_run_alive(self, run_id: str) -> bool:
        """Whether a live process is at work on it."""
        ...

    def set_flow_run(self, run_id: str, flow_run_id: str) -> None:
        """Note which flow run carries it out."""
        ...

    def reroute_run(self, run_id: str, method: Method) -> bool:
        """Have a queued run carried out another way."""
        ...


class Deployer(Protocol):
    """What of Prefect is needed here; `PrefectService` has the promises."""

    @property
    def initialized(self) -> bool:
        """Whether it answered last."""
        ...

    def patiently(self) -> AbstractContextManager[None]:
        """Wait longer for each call of this task's until the block ends."""
        ...

    def plan(self, ingestion: Ingestion) -> DeploymentPlan:
        """What `create_deployment` would send."""
        ...

    async def create_deployment(self, ingestion: Ingestion) -> str:
        """Make or replace it."""
        ...

    async def delete_deployment(self, deployment_id: str) -> None:
        """Remove it."""
        ...

    async def list_deployments(self) -> list[FoundDeployment]:
        """All of this installation."""
        ...

    def queue_of(self, run: RunRecord, ingestion: Ingestion) -> str:
        """The queue that a flow run of this run goes to."""
        ...

    async def trigger_deployment(
        self,
        deployment_id: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        after: str | None = None,
        queue: str | None = None,
    ) -> str:
        """Begin a flow run."""
        ...

    async def flow_runs_by_id(self, ids: list[str]) -> dict[str, FlowRun]:
        """Those of them that are known."""
        ...

    async def open_flow_runs(self) -> list[FlowRun]:
        """Those that began and did not end."""
        ...

    async def end_flow_run(self, flow_run_id: str, message: str, *, crashed: bool) -> None:
        """Say that it crashed, or that it is to end."""
        ...


@dataclass(frozen=True)
class Comparison:
    """Both sides held against each other.

    Args:
        actions: What there is to do.
        scheduled: How many ingestions have to have a deployment.
        due_soon: How many of them are due within a day, so that Prefect has to have made flow runs ahead.
    """

    actions: list[Action]
    scheduled: int
    due_soon: int


@dataclass
class PassReport:
    """What a pass did; grows action by action.

    Args:
        scheduled: Ingestions that have to have a deployment.
        due_soon: Those of them that are due within a day.
        failed: Ingestion id → why nothing could be done for it.
        left: Actions that were not come to: the time was over, or Prefect went away.
    """

    scheduled: int = 0
    due_soon: int = 0
    made: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    buried: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    given_again: list[str] = field(default_factory=list)
    gone_without: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0

    @property
    def is_quiet(self) -> bool:
        """Whether there was nothing to do."""
        done = (self.made, self.changed, self.noted, self.removed, self.buried, self.crashed, self.given_again)
        return not (any(done) or self.gone_without or self.failed or self.left)


class Reconciler:
    """One pass at a time. Raises nothing of Prefect's: what could not be done is told, and done by the next pass."""

    def __init__(
        self,
        rows: Rows,
        prefect: Deployer,
        retry: RetryPolicy,
        *,
        grace_s: float,
        a_second: float = A_SECOND,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rows = rows
        self._prefect = prefect
        self._retry = retry
        self._grace = timedelta(seconds=grace_s)
        self._gap_s = 1 / a_second
        self._pause = pause
        # Run id and number of its attempts → how often it was given to Prefect from here. One whose flow runs never
        # come to begin it (a worker that cannot import the flow) is not given for ever.
        self._given: dict[tuple[str, int], int] = {}
        # A pass and the beat between passes both settle runs.
        self._settling = asyncio.Lock()

    # --- deployments ------------------------------------------------------------------------------------------------

    async def compare(self, tenant: str | None = None) -> Comparison:
        """What there is to do; for that tenant's ingestions alone, where one is named.

        Raises:
            SchedulerUnavailableError: Prefect does not say what it has.
        """
        # In this order: see `differences`.
        with self._prefect.patiently():
            theirs = await self._prefect.list_deployments()
        ours = [self._wanted(one) for one in await asyncio.to_thread(self._rows.ingestions_to_schedule)]
        now = datetime.now(UTC)
        actions = differences(ours, theirs)
        if tenant is not None:
            ours = [one for one in ours if one.ingestion.tenant == tenant]
            ids = {one.ingestion.id for one in ours}
            actions = [action for action in actions if action.ingestion_id in ids]
        return Comparison(
            actions=actions,
            scheduled=sum(one.plan is not None for one in ours),
            due_soon=sum(_is_due_soon(one, now) for one in ours),
        )

    def _wanted(self, ingestion: Ingestion) -> Wanted:
        if not _is_scheduled(ingestion):
            return Wanted(ingestion, None)
        try:
            return Wanted(ingestion, self._prefect.plan(ingestion))
        except InvalidFieldError as error:
            # It was accepted once: the time zone is gone from this machine.
            log.warning("schedule_cannot_be_read", ingestion_id=ingestion.id, reason=str(error))
            return Wanted(ingestion, None)

    async def carry_out(
        self,
        actions: Sequence[Action],
        report: PassReport,
        *,
        until: Callable[[], bool] = lambda: False,
        on_step: Callable[[PassReport], None] = lambda _report: None,
    ) -> None:
        """Do them one after the other, at a rate that Prefect bears.

        Args:
            actions: What `compare` said, or some of it.
            report: Grows.
            until: Asked before each action: whether to leave the rest.
            on_step: Told after each action.
        """
        left = len(actions)
        with self._prefect.patiently():
            for action in actions:
                began = time.monotonic()
                if until() or not await self._tried(action, report):
                    break
                left -= 1
                on_step(report)
                if not isinstance(action, Note | Bury | Forget):
                    await self._pause(max(0.0, self._gap_s - (time.monotonic() - began)))
        report.left += left

    async def _tried(self, action: Action, report: PassReport) -> bool:
        """False where Prefect is away, so that trying the next one is no use."""
        try:
            await self._done(action, report)
        except SchedulerUnavailableError as error:
            if not self._prefect.initialized:
                return False
            name = action.ingestion_id or getattr(action, "deployment_id", "")
            report.failed[name] = str(error)
            log.warning("deployment_not_reconciled", ingestion_id=name, reason=str(error))
        return True

    async def _done(self, action: Action, report: PassReport) -> None:
        rows = self._rows
        match action:
            case Make(ingestion_id, is_new):
                if await self._make(ingestion_id):
                    (report.made if is_new else report.changed).append(ingestion_id)
            case Note(ingestion_id, deployment):
                await asyncio.to_thread(rows.set_deployment, ingestion_id, deployment)
                report.noted.append(ingestion_id)
            case Remove(deployment_id, ingestion_id):
                await self._prefect.delete_deployment(deployment_id)
                report.removed.append(ingestion_id or deployment_id)
                if ingestion_id:
                    await self._settle_row(ingestion_id, report)
            case Forget(ingestion_id):
                await asyncio.to_thread(rows.set_deployment, ingestion_id, None)
                report.noted.append(ingestion_id)
            case Bury(ingestion_id):
                await asyncio.to_thread(rows.remove_ingestion, ingestion_id)
                report.buried.append(ingestion_id)

    async def _make(self, ingestion_id: str) -> bool:
        # As it is now: somebody may have changed it since the rows were read.
        ingestion = await asyncio.to_thread(self._rows.ingestion, ingestion_id)
        if ingestion is None or not _is_scheduled(ingestion):
            return False
        deployment_id = await self._prefect.create_deployment(ingestion)
        deployment = Deployment(deployment_id, self._prefect.plan(ingestion).fingerprint)
        if await asyncio.to_thread(self._rows.set_deployment, ingestion_id, deployment):
            return True
        # It was deleted meanwhile, and whoever did it did not know of this deployment.
        await self._prefect.delete_deployment(deployment_id)
        return False

    async def _settle_row(self, ingestion_id: str, report: PassReport) -> None:
        ingestion = await asyncio.to_thread(partial(self._rows.ingestion, ingestion_id, deleted=True))
        if ingestion is None:
            return
        if ingestion.deleted_at is not None:
            await asyncio.to_thread(self._rows.remove_ingestion, ingestion_id)
            report.buried.append(ingestion_id)
        elif not _is_scheduled(ingestion):
            await asyncio.to_thread(self._rows.set_deployment, ingestion_id, None)

    # --- runs -------------------------------------------------------------------------------------------------------

    async def settle_runs(self, report: PassReport) -> None:
        """Settle runs whose process died, and see to it that every queued one is carried out.

        Raises nothing when Prefect is away: what waits for it long enough goes on without it.
        """
        async with self._settling:
            await self._settle_runs(report)

    async def _settle_runs(self, report: PassReport) -> None:
        await self._settle_dead(report)
        due = await asyncio.to_thread(self._rows.due_runs, Method.PREFECT)
        open_runs = await asyncio.to_thread(self._rows.open_runs, Method.PREFECT)
        try:
            known = await self._flow_runs_of(open_runs)
        except SchedulerUnavailableError:
            await self._go_without(due, report)
            return
        for run in open_runs:
            await self._cancel_as_told(run, known.get(run.flow_run_id or ""))
        now = await asyncio.to_thread(self._rows.now)
        for run in due:
            if is_to_be_given_again(run, known.get(run.flow_run_id or ""), now):
                await self._give_again(run, report)

    async def look_at(self, flow_run_id: str) -> None:
        """See to the run that a flow run carries out, of which there is news. Late, or again: no harm.

        Raises:
            SchedulerUnavailableError: Prefect does not say what is true of it.
        """
        run = await asyncio.to_thread(self._rows.run_of_flow_run, flow_run_id)
        if run is None or run.is_over:
            return
        async with self._settling:
            await self._settle_dead(PassReport(), run.ingestion_id)
            known = await self._flow_runs_of([run])
            await self._cancel_as_told(run, known.get(flow_run_id))
            due = await asyncio.to_thread(self._rows.due_runs, Method.PREFECT)
            now = await asyncio.to_thread(self._rows.now)
            for one in due:
                if one.id == run.id and is_to_be_given_again(one, known.get(flow_run_id), now):
                    await self._give_again(one, PassReport())

    async def _settle_dead(self, report: PassReport, ingestion_id: str | None = None) -> None:
        """Settle runs whose process died, and tell Prefect, which takes them to be at work for ever."""
        for settled in await asyncio.to_thread(self._rows.settle_dead_runs, self._retry, ingestion_id):
            log.warning("run_died", run_id=settled.id, ingestion_id=settled.ingestion_id, status=str(settled.status))
            if settled.flow_run_id and settled.method is Method.PREFECT:
                await self._say_dead(settled.flow_run_id, report)

    async def _cancel_as_told(self, run: RunRecord, flow_run: FlowRun | None) -> None:
        """End a run whose flow run somebody cancelled in Prefect."""
        if not is_cancelled_there(run, flow_run):
            return
        log.info("run_cancelled_in_prefect", run_id=run.id, ingestion_id=run.ingestion_id)
        with suppress(RunOverError):
            await asyncio.to_thread(self._rows.request_cancel, run.id)

    async def _say_dead(self, flow_run_id: str, report: PassReport) -> None:
        """Say that a flow run crashed."""
        try:
            await self._prefect.end_flow_run(flow_run_id, "Its process died.", crashed=True)
        except SchedulerUnavailableError as error:
            # `bury_flow_runs` finds it later.
            log.info("flow_run_not_ended", flow_run_id=flow_run_id, reason=str(error))
        else:
            report.crashed.append(flow_run_id)

    async def _flow_runs_of(self, due: list[RunRecord]) -> dict[str, FlowRun]:
        ids = [run.flow_run_id for run in due if run.flow_run_id]
        if due and not self._prefect.initialized:
            raise SchedulerUnavailableError
        return await self._prefect.flow_runs_by_id(ids) if ids else {}

    async def _go_without(self, due: list[RunRecord], report: PassReport) -> None:
        now = await asyncio.to_thread(self._rows.now)
        for run in due:
            if is_to_go_without(run, now):
                await self._reroute(run, report)

    async def _reroute(self, run: RunRecord, report: PassReport) -> None:
        self._given.pop((run.id, run.attempts), None)
        if await asyncio.to_thread(self._rows.reroute_run, run.id, Method.DIRECT):
            log.warning("run_goes_on_without_prefect", run_id=run.id, ingestion_id=run.ingestion_id)
            report.gone_without.append(run.id)

    async def _give_again(self, run: RunRecord, report: PassReport) -> None:
        ingestion = await asyncio.to_thread(self._rows.ingestion, run.ingestion_id)
        given = self._given.get((run.id, run.attempts), 0)
        if ingestion is None or ingestion.deployment is None or given >= max(self._retry.times, 1):
            await self._reroute(run, report)
            return
        queue = self._prefect.queue_of(run, ingestion)
        try:
            flow_run_id = await self._prefect.trigger_deployment(
                ingestion.deployment.id, order_of(run), after=run.flow_run_id, queue=queue
            )
        except SchedulerUnavailableError as error:
            log.warning("run_not_given_again", run_id=run.id, reason=str(error))
            return
        await asyncio.to_thread(self._rows.set_flow_run, run.id, flow_run_id)
        self._given[run.id, run.attempts] = given + 1
        report.given_again.append(run.id)

    async def bury_flow_runs(self, report: PassReport) -> None:
        """Say of flow runs that nobody is at work on that they crashed.

        Raises:
            SchedulerUnavailableError: Prefect does not answer.
        """
        runs = await self._prefect.open_flow_runs()
        alive = {run.id: await asyncio.to_thread(self._is_alive, run) for run in runs}
        for run in dead_flow_runs(runs, lambda one: alive[one.id], datetime.now(UTC), self._grace):
            log.warning("flow_run_is_dead", flow_run_id=run.id, state=run.state_name)
            await self._prefect.end_flow_run(run.id, "Nobody is at work on it any more.", crashed=True)
            report.crashed.append(run.id)

    def _is_alive(self, flow_run: FlowRun) -> bool:
        named = flow_run.parameters.get("run_id")
        run = self._rows.run_of_flow_run(flow_run.id) or (self._rows.run(str(named)) if named else None)
        if run is None:
            return False
        # Its lease is given back before its process has told Prefect how it ended.
        has_just_ended = run.ended_at is not None and datetime.now(UTC) - run.ended_at <= self._grace
        return has_just_ended or self._rows.is_run_alive(run.id)

    # --- all of it --------------------------------------------------------------------------------------------------

    async def run_pass(self) -> PassReport:
        """Compare and do everything once."""
        report = PassReport()
        try:
            await self.settle_runs(report)
            found = await self.compare()
            report.scheduled, report.due_soon = found.scheduled, found.due_soon
            await self.carry_out(found.actions, report)
            await self.bury_flow_runs(report)
        except SchedulerUnavailableError as error:
            log.info("reconciling_ended_early", reason=str(error))
            report.left += 1
        if not report.is_quiet:
            log.info(
                "reconciled",
                made=len(report.made),
                changed=len(report.changed),
                removed=len(report.removed),
                crashed=len(report.crashed),
                given_again=len(report.given_again),
                left=report.left,
            )
        return report


def _is_scheduled(ingestion: Ingestion) -> bool:
    """Whether Prefect is to know it: a paused one is there, and paused; a draft is not."""
    has_schedule = ingestion.schedule is not None and ingestion.deleted_at is None
    return has_schedule and ingestion.status is not IngestionStatus.DRAFT


def _is_due_soon(wanted: Wanted, now: datetime) -> bool:
    schedule = wanted.ingestion.schedule
    if wanted.plan is None or wanted.plan.paused or schedule is None:
        return False
    return any(slot - now < A_DAY for slot in slots(schedule, now, 1))
