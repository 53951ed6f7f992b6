"""Gives ingestions their time through a Prefect server, which may be slow, gone or empty at any moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from app.domain.errors import DeploymentGoneError, SchedulerUnavailableError
from app.domain.events import EventLog
from app.domain.ingestions import FlowRun, Ingestion, RunRecord, Schedule
from app.services import prefect_readings as readings
from app.services.prefect_callback import Callback, read_callback, remove_callback, write_callback
from app.services.prefect_connection import PrefectConnection, PrefectSlowError
from app.services.prefect_plans import (
    FLOW_NAME,
    PARAMETER_SCHEMA,
    SCHEDULE_SLUG,
    DeploymentPlan,
    FoundDeployment,
    PrefectSettings,
    plan_deployment,
    queue_of,
    run_key,
)
from app.services.prefect_stream import flow_run_events
from app.services.prefect_worker import is_dead_worker
from app.services.schedules import Cron, cron_of

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import State

log = EventLog(__name__)

T = TypeVar("T")

PAGE = 200
PATIENCE_S = 15.0
PROCESS_POOL = "process"
NOT_FOUND = 404
# What Prefect's API answers to a greeting.
GREETING = "👋"
# A worker that did not tell of itself for so long is none.
WORKER_SILENCE = timedelta(seconds=60)


@dataclass(frozen=True)
class DeploymentInfo:
    """What Prefect tells of a deployment."""

    id: str
    name: str
    paused: bool
    schedule: Cron | None
    work_queue_name: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True)
class FlowRunDetails:
    """What Prefect tells of a flow run to somebody who wants to know why."""

    flow_run: FlowRun
    message: str
    logs: tuple[Mapping[str, Any], ...]
    url: str | None


class PrefectService:
    """Keeps the promises of `domain.ingestions.Scheduler`.

    All calls but `initialize` raise SchedulerUnavailableError when Prefect does not answer within its time, or did not
    a moment ago.
    """

    def __init__(self, settings: PrefectSettings) -> None:
        self._settings = settings
        self._connection = PrefectConnection(settings.api_url, timeout_s=settings.timeout_s, pause_s=settings.pause_s)
        self._flow_id: UUID | None = None
        self._has_answered = False
        # Whether somebody looks again and again if it is there.
        self._is_watched = False
        # Why it is not initialized; empty while it is.
        self.trouble = "Prefect was not reached yet."
        self._has_missed = False
        # The type that the work pool has: somebody may have made it before us, as another one.
        self.pool_type: str | None = None

    @property
    def settings(self) -> PrefectSettings:
        """Where Prefect is and how it is used."""
        return self._settings

    @property
    def initialized(self) -> bool:
        """Whether it answered last."""
        return self._has_answered and not self._connection.is_silent

    async def initialize(self) -> bool:
        """Connect, and make the work pool and its queues where they are missing. Never raises; again: looks again.

        Returns:
            Whether Prefect can be used; `trouble` says why not.
        """
        try:
            await self._connection.open()
            await self._connection.ask(_greeted, anyway=True)
            self.pool_type = await self._connection.ask(self._ensured_pool, anyway=True)
        except (SchedulerUnavailableError, ImportError) as error:
            return self._is_of_no_use(error)
        self._has_answered, self.trouble = True, ""
        return True

    async def ping(self) -> bool:
        """Whether it answers now. Whoever asks this asks again soon, whatever comes of it."""
        self._is_watched = True
        return await self.initialize() if not self.initialized else await self._answers()

    def missed(self) -> bool:
        """Whether it was not told something since this was asked last, which it has to know soon."""
        missed, self._has_missed = self._has_missed, False
        return missed

    def patiently(self) -> AbstractContextManager[None]:
        """Wait longer for each call of this task's until the block ends: nobody waits for what it does."""
        return self._connection.patiently(PATIENCE_S)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    # --- deployments ------------------------------------------------------------------------------------------------

    def fingerprint(self, ingestion: Ingestion) -> str:
        """Of everything that `create_deployment` would send for it."""
        return self.plan(ingestion).fingerprint

    def plan(self, ingestion: Ingestion) -> DeploymentPlan:
        """What `create_deployment` would send for it."""
        return plan_deployment(ingestion, self._settings, datetime.now(UTC))

    async def create_deployment(self, ingestion: Ingestion) -> str:
        """Make or replace the deployment `ingestion-{id}`; its id. Again: the same id."""
        plan = self.plan(ingestion)

        async def create(client: PrefectClient) -> str:
            had_flow = self._flow_id is not None
            try:
                return await self._created(client, plan)
            except self._missing() as error:
                if not had_flow:
                    raise
                log.info("prefect_lost_its_flow", reason=type(error).__name__)
            # The server's database is another one than before: nothing that we knew of it holds.
            self._flow_id = None
            await self._ensured_pool(client)
            return await self._created(client, plan)

        return await self._told(create)

    async def update_deployment_schedule(self, deployment_id: str, schedule: Schedule | None) -> None:
        """Replace its schedule, or take it away. Prefect may need a minute to act on it.

        Raises:
            DeploymentGoneError: Prefect does not know it.
        """
        cron = cron_of(schedule, datetime.now(UTC)) if schedule else None

        async def update(client: PrefectClient) -> None:
            from prefect.client.schemas.actions import (  # noqa: PLC0415
                DeploymentScheduleUpdate,
                DeploymentUpdate,
            )

            found = await client.read_deployment(UUID(deployment_id))
            for old in found.schedules:
                if cron is None or old.slug != SCHEDULE_SLUG:
                    await client.delete_deployment_schedule(found.id, old.id)
            if cron is not None:
                changed = DeploymentScheduleUpdate(schedule=_cron_schedule(cron), active=True, slug=SCHEDULE_SLUG)
                await client.update_deployment(found.id, DeploymentUpdate(schedules=[changed]))

        await self._told(update)

    async def pause_deployment(self, deployment_id: str) -> None:
        """Stop its schedule. One that is gone is no error."""
        await self._unless_gone(lambda client: client.pause_deployment(UUID(deployment_id)))

    async def resume_deployment(self, deployment_id: str) -> None:
        """Let its schedule go on. One that is gone is no error."""
        await self._unless_gone(lambda client: client.resume_deployment(UUID(deployment_id)))

    async def delete_deployment(self, deployment_id: str) -> None:
        """Remove it with the flow runs that it has still to come. One that is gone is no error."""
        await self._unless_gone(lambda client: client.delete_deployment(UUID(deployment_id)))

    async def get_deployment_info(self, deployment_id: str) -> DeploymentInfo | None:
        """What Prefect tells of it; None when it is gone."""
        try:
            found = await self._connection.ask(lambda client: client.read_deployment(UUID(deployment_id)))
        except DeploymentGoneError:
            return None
        read = readings.deployment(found)
        schedule = read.schedules[0] if read.schedules else None
        return DeploymentInfo(read.id, read.name, read.paused, schedule, read.queue, read.tags)

    async def list_deployments(self) -> list[FoundDeployment]:
        """All that carry the tag of this installation."""
        found: list[FoundDeployment] = []
        while True:
            offset = len(found)
            page = await self._connection.ask(lambda client, offset=offset: self._page(client, offset))  # type: ignore[misc]
            found += page
            if len(page) < PAGE:
                return found

    # --- flow runs --------------------------------------------------------------------------------------------------

    def queue_of(self, run: RunRecord, ingestion: Ingestion) -> str:
        """The queue that a flow run of this run goes to."""
        return queue_of(run, ingestion, self._settings)

    async def trigger_deployment(
        self,
        deployment_id: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        after: str | None = None,
        queue: str | None = None,
    ) -> str:
        """Begin a flow run; its id.

        Args:
            deployment_id: Whose.
            parameters: `run_id`, when given, makes it the same flow run again however often this is called.
            after: The flow run that ended without the run's end, so that another one has to go on.
            queue: The queue that it waits in; None: the one for priority.

        Raises:
            DeploymentGoneError: Prefect does not know the deployment.
        """
        given = dict(parameters or {})
        run_id = given.get("run_id")
        flow_run = await self._connection.ask(
            lambda client: client.create_flow_run_from_deployment(
                UUID(deployment_id),
                parameters=given,
                idempotency_key=run_key(str(run_id), after) if run_id else None,
                work_queue_name=queue or self._settings.priority_queue,
            )
        )
        return str(flow_run.id)

    async def get_flow_runs(self, deployment_id: str, limit: int = 50) -> list[FlowRun]:
        """Its flow runs, newest first."""

        async def read(client: PrefectClient) -> list[FlowRun]:
            from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId  # noqa: PLC0415
            from prefect.client.schemas.sorting import FlowRunSort  # noqa: PLC0415

            found = await client.read_flow_runs(
                deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[UUID(deployment_id)])),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
                limit=limit,
            )
            return [readings.flow_run(one) for one in found]

        return await self._connection.ask(read)

    async def flow_runs_by_id(self, ids: Sequence[str]) -> dict[str, FlowRun]:
        """Those of them that Prefect knows."""
        found: dict[str, FlowRun] = {}
        for start in range(0, len(ids), PAGE):
            part = [UUID(one) for one in ids[start : start + PAGE]]
            page = await self._connection.ask(lambda client, part=part: _runs_of(client, part))  # type: ignore[misc]
            found |= {one.id: one for one in page}
        return found

    async def open_flow_runs(self) -> list[FlowRun]:
        """Flow runs of this installation that began and did not end; `start_time` is when they came to be so."""

        async def read(client: PrefectClient) -> list[FlowRun]:
            from prefect.client.schemas.filters import (  # noqa: PLC0415
                FlowRunFilter,
                FlowRunFilterState,
                FlowRunFilterStateType,
                FlowRunFilterTags,
            )
            from prefect.client.schemas.objects import StateType  # noqa: PLC0415
            from prefect.client.schemas.sorting import FlowRunSort  # noqa: PLC0415

            types = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
            wanted = FlowRunFilter(
                tags=FlowRunFilterTags(all_=[self._settings.installation_tag]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)),
            )
            found = await client.read_flow_runs(
                flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=PAGE
            )
            return [readings.flow_run(one) for one in found]

        return await self._connection.ask(read)

    async def has_runs_to_come(self) -> bool:
        """Whether Prefect has made any flow run of this installation ahead: a scheduler that is silent has not."""

        async def read(client: PrefectClient) -> bool:
            from prefect.client.schemas.filters import (  # noqa: PLC0415
                FlowRunFilter,
                FlowRunFilterExpectedStartTime,
                FlowRunFilterTags,
            )
            from prefect.client.schemas.sorting import FlowRunSort  # noqa: PLC0415

            wanted = FlowRunFilter(
                tags=FlowRunFilterTags(all_=[self._settings.installation_tag]),
                expected_start_time=FlowRunFilterExpectedStartTime.model_validate({"after_": datetime.now(UTC)}),
            )
            sort = FlowRunSort.EXPECTED_START_TIME_DESC
            return bool(await client.read_flow_runs(flow_run_filter=wanted, sort=sort, limit=1))

        return await self._connection.ask(read)

    async def end_flow_run(self, flow_run_id: str, message: str, *, crashed: bool) -> None:
        """Say that a flow run crashed, or that it is to end. One that is gone is no error; one that is over stays.

        One that was being cancelled has been: Prefect knows no other end of it.
        """

        async def end(client: PrefectClient) -> None:
            from prefect.states import Cancelling, Crashed  # noqa: PLC0415

            which = UUID(flow_run_id)
            state: State[Any] = Crashed(message=message) if crashed else Cancelling(message=message)
            # Whoever ended it may say why at this very moment: Prefect itself decides that a final state stays.
            await client.set_flow_run_state(which, state, force=False)
            if not crashed:
                return
            left = (await client.read_flow_run(which)).state
            if left is None or not left.is_final():
                # Its rules may want something of whoever carries it out, and there is nobody.
                await client.set_flow_run_state(which, state, force=True)

        await self._unless_gone(end)

    async def flow_run_details(self, flow_run_id: str, *, limit: int = 200, offset: int = 0) -> FlowRunDetails | None:
        """State, times, logs and the page of a flow run; None when it is gone."""

        async def read(client: PrefectClient) -> FlowRunDetails:
            from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId  # noqa: PLC0415
            from prefect.client.schemas.sorting import LogSort  # noqa: PLC0415

            found = await client.read_flow_run(UUID(flow_run_id))
            logs = await client.read_logs(
                log_filter=LogFilter(flow_run_id=LogFilterFlowRunId(any_=[found.id])),
                sort=LogSort.TIMESTAMP_ASC,
                limit=limit,
                offset=offset,
            )
            message = (found.state.message if found.state else None) or ""
            page = readings.page_of(self._settings.api_url, flow_run_id)
            return FlowRunDetails(readings.flow_run(found), message, tuple(map(readings.log_line, logs)), page)

        try:
            return await self._connection.ask(read)
        except DeploymentGoneError:
            return None

    # --- news -------------------------------------------------------------------------------------------------------

    def flow_run_events(self) -> AsyncIterator[str]:
        """Ids of flow runs that came to an end, as they do; see `prefect_stream`."""
        return flow_run_events(self._settings.api_url, lambda: self.initialized)

    async def callback(self) -> Callback | None:
        """How Prefect calls us now; None where it does not."""
        return await self._connection.ask(lambda client: read_callback(client, self._callback_name))

    async def set_callback(self, callback: Callback) -> None:
        """Have Prefect call us about flow runs of this installation. Again: no change."""
        tag = self._settings.installation_tag
        await self._connection.ask(lambda client: write_callback(client, self._callback_name, tag, callback))

    async def remove_callback(self) -> None:
        """Have Prefect call us no more. Again: no change."""
        await self._connection.ask(lambda client: remove_callback(client, self._callback_name))

    @property
    def _callback_name(self) -> str:
        return f"autoloader-{self._settings.installation}"

    @property
    def calls(self) -> Mapping[str, int]:
        """How many calls ended how, since the process began."""
        return self._connection.calls

    @property
    def is_silent(self) -> bool:
        """Whether a call got no answer a moment ago, so that none is made."""
        return self._connection.is_silent

    # --- workers ----------------------------------------------------------------------------------------------------

    async def workers_online(self) -> list[str]:
        """Names of the workers of the pool that told of themselves within a minute."""
        found = await self._connection.ask(lambda client: client.read_workers_for_work_pool(self._settings.pool))
        since = datetime.now(UTC) - WORKER_SILENCE
        heard = [one.name for one in found if one.last_heartbeat_time and one.last_heartbeat_time >= since]
        return [name for name in heard if not is_dead_worker(name)]

    async def unserved_queues(self) -> list[str]:
        """Those of our work queues that are paused, or that no worker asked for runs within a minute."""
        found = await self._connection.ask(lambda client: client.read_work_queues(work_pool_name=self._settings.pool))
        since = datetime.now(UTC) - WORKER_SILENCE
        served = {one.name for one in found if not one.is_paused and one.last_polled and one.last_polled >= since}
        return [name for name in self._settings.queues if name not in served]

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _answers(self) -> bool:
        try:
            await self._connection.ask(_greeted, anyway=True)
        except PrefectSlowError:
            return True
        except SchedulerUnavailableError as error:
            return self._is_of_no_use(error)
        return True

    def _is_of_no_use(self, error: Exception) -> bool:
        """False, and no call is made for a while: a refusal comes at once, but tries before it take their time.

        Where somebody looks again and again, that while ends with a look that is answered, however late looks come.
        """
        self._has_answered, self.trouble = False, str(error)
        self._connection.spare(until_answered=self._is_watched)
        return False

    async def _unless_gone(self, call: Any) -> None:  # noqa: ANN401 - whatever the client answers is not looked at
        try:
            await self._told(call)
        except DeploymentGoneError:
            log.info("prefect_knows_it_no_more")

    async def _told(self, call: Callable[[PrefectClient], Awaitable[T]]) -> T:
        """The answer to something that it has to know; that it did not hear it is kept in mind."""
        try:
            return await self._connection.ask(call)
        except DeploymentGoneError:
            raise
        except SchedulerUnavailableError:
            # Who waits longer than others is the reconciler, which comes back by itself.
            self._has_missed |= not self._connection.is_patient
            raise

    async def _created(self, client: PrefectClient, plan: DeploymentPlan) -> str:
        if self._flow_id is None:
            self._flow_id = await client.create_flow_from_name(FLOW_NAME)
        schedules = [_schedule_create(plan.cron)] if plan.cron else []
        # Prefect empties what is not sent, so all of it is.
        created = await client.create_deployment(
            flow_id=self._flow_id,
            name=plan.name,
            version=plan.version,
            parameters=dict(plan.parameters),
            tags=list(plan.tags),
            work_pool_name=plan.pool,
            work_queue_name=plan.queue,
            entrypoint=plan.entrypoint,
            schedules=schedules,
            paused=plan.paused,
            enforce_parameter_schema=True,
            parameter_openapi_schema=dict(PARAMETER_SCHEMA),
            job_variables=dict(plan.job_variables),
            description="Made by Autoloader from an ingestion; changes made here are undone.",
        )
        return str(created)

    async def _ensured_pool(self, client: PrefectClient) -> str:
        from prefect.client.schemas.actions import WorkPoolCreate  # noqa: PLC0415
        from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound  # noqa: PLC0415

        name = self._settings.pool
        try:
            pool = await client.read_work_pool(name)
        except ObjectNotFound:
            try:
                pool = await client.create_work_pool(WorkPoolCreate(name=name, type=PROCESS_POOL))
            except ObjectAlreadyExists:
                pool = await client.read_work_pool(name)
        present = {queue.name for queue in await client.read_work_queues(work_pool_name=name)}
        for queue, priority in self._settings.queues.items():
            if queue not in present:
                await _create_queue(client, queue, priority, name)
        return pool.type

    async def _page(self, client: PrefectClient, offset: int) -> list[FoundDeployment]:
        from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags  # noqa: PLC0415
        from prefect.client.schemas.sorting import DeploymentSort  # noqa: PLC0415

        wanted = DeploymentFilter(tags=DeploymentFilterTags(all_=[self._settings.installation_tag]))
        found = await client.read_deployments(
            deployment_filter=wanted, sort=DeploymentSort.NAME_ASC, limit=PAGE, offset=offset
        )
        return [readings.deployment(one) for one in found]

    @staticmethod
    def _missing() -> tuple[type[Exception], ...]:
        from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError  # noqa: PLC0415

        return (ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError)


async def _greeted(client: PrefectClient) -> None:
    from prefect.exceptions import PrefectHTTPStatusError  # noqa: PLC0415

    not_prefect = SchedulerUnavailableError(
        "What answers at PREFECT_API_URL is not Prefect's API.",
        remedy="The address ends in /api, such as http://localhost:4200/api.",
    )
    try:
        answer = await client.hello()
    except PrefectHTTPStatusError as error:
        if error.response.status_code == NOT_FOUND:
            raise not_prefect from error
        raise
    if answer.json() != GREETING:
        raise not_prefect


async def _create_queue(client: PrefectClient, name: str, priority: int, pool: str) -> None:
    from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError  # noqa: PLC0415

    try:
        await client.create_work_queue(name=name, work_pool_name=pool, priority=priority)
    except (ObjectAlreadyExists, PrefectHTTPStatusError) as error:
        # Another process of ours may make them at the same moment.
        present = {queue.name for queue in await client.read_work_queues(work_pool_name=pool)}
        if name not in present:
            raise
        log.info("prefect_queue_was_made_meanwhile", queue=name, reason=type(error).__name__)


async def _runs_of(client: PrefectClient, ids: Iterable[UUID]) -> list[FlowRun]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId  # noqa: PLC0415
    from prefect.client.schemas.sorting import FlowRunSort  # noqa: PLC0415

    wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(ids)))
    found = await client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=PAGE)
    return [readings.flow_run(one) for one in found]


def _cron_schedule(cron: Cron) -> Any:  # noqa: ANN401 - a class of a library that is imported late
    from prefect.client.schemas.schedules import CronSchedule  # noqa: PLC0415

    return CronSchedule(cron=cron.expression, timezone=cron.timezone)


def _schedule_create(cron: Cron) -> DeploymentScheduleCreate:
    from prefect.client.schemas.actions import DeploymentScheduleCreate  # noqa: PLC0415

    return DeploymentScheduleCreate(schedule=_cron_schedule(cron), active=True, slug=SCHEDULE_SLUG)


# --- the one of this process ------------------------------------------------------------------------------------------

_registered: list[PrefectService] = []


def register_prefect_service(service: PrefectService | None) -> None:
    """Make it the one that `get_prefect_service` gives; None: there is none."""
    _registered[:] = [service] if service is not None else []


async def get_prefect_service() -> PrefectService:
    """The one that `wiring` made for this process.

    Raises:
        SchedulerUnavailableError: There is none: PREFECT_API_URL is not set.
    """
    if not _registered:
        raise SchedulerUnavailableError("Scheduling is off.", remedy="Set PREFECT_API_URL, then start again.")
    return _registered[0]
