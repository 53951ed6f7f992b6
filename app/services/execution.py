"""Carries a run of the service out: what a flow and a direct run both come to, in a process of its own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from app.domain.errors import (
    AutoloaderError,
    ClusterUnknownError,
    ConflictError,
    InternalError,
    NoMatchError,
    NotFoundError,
    RetriableError,
    RunCancelled,
    RunDiedError,
    RunGivenBack,
    RunTimedOut,
    RunTooLarge,
    SchedulerUnavailableError,
    StoppedByUser,
    TimedOutError,
    WrongDatabaseError,
)
from app.domain.events import EventLog, bound
from app.domain.ingestions import Ingestion, IngestionStatus, Method, RunRecord, Trigger
from app.domain.runs import Lease, LeaseHolder, Owner, RunReport, RunStatus
from app.domain.service import NewRun, RetryPolicy, RunStop, ServiceStore
from app.domain.table import parse_table_name
from app.domain.watch import Watcher
from app.services.ingestion_documents import values_of
from app.services.preflight import LoadRequest
from app.services.run import RunOrder
from app.services.telling import RunTeller
from app.services.vigil import Interruption, Vigil

log = EventLog(__name__)

Load = Callable[[LoadRequest, Watcher, RunOrder], RunReport]

# Begins a flow run for a run that was handed over, of the deployment of that id; the flow run's id. Again for the same
# run and the same flow run before it: the same one. Raises SchedulerUnavailableError.
HandOn = Callable[[Ingestion, RunRecord], str]

LOCAL_CLUSTER = "local"
# A panic in a library's native code is no `Exception`, and no order to end either. Its class has no other name.
_PANICS = "pyo3_runtime"
GIB = 1 << 30
LEASE_GRACE_S = 5.0
LEASE_PAUSE_S = 0.2


@dataclass(frozen=True)
class ExecutionSettings:
    """What a run works by beside its ingestion."""

    lease_s: float
    timeout_s: float
    retry: RetryPolicy
    # The folder that a relative path of a source starts from.
    home: str
    # The database's address, as it may be shown.
    database: str
    # Takes secrets out of what is written down.
    clean: Callable[[str], str] = str
    # A run that finds more new bytes than that in another queue is handed over to this one.
    high_memory_queue: str = "autoloader-high-memory"
    high_memory_bytes: int = 10 * GIB


@dataclass(frozen=True)
class Execution:
    """What came of being asked to carry a run out.

    Args:
        run: The run as it is now; None: a time of the schedule for which nothing was to do.
        reason: Why this process did not carry it out; empty: it did.
        given_back: Its worker ends: the run is queued again, and another worker goes on with it.
    """

    run: RunRecord | None
    reason: str = ""
    given_back: bool = False


class RunExecutor:
    """Carries runs out, one after the other, in the main thread of its process."""

    def __init__(
        self,
        store: ServiceStore,
        load: Load,
        owner: Owner,
        settings: ExecutionSettings,
        hand_on: HandOn | None = None,
    ) -> None:
        """Work with `store`; `load` is what loads, `owner` this process, `hand_on` the way to the scheduler."""
        self._store = store
        self._load = load
        self._owner = owner
        self._settings = settings
        self._hand_on = hand_on

    def execute(
        self,
        ingestion_id: str,
        trigger: Trigger,
        *,
        run_id: str | None = None,
        flow_run_id: str | None = None,
        scheduled_for: datetime | None = None,
        queue: str | None = None,
    ) -> Execution:
        """Carry out one run, and say how it ended.

        Its row is found by `run_id` or by `flow_run_id`, or made: asked again for one that is over, at work or no
        longer wanted, nothing is done. A run that ends in a retriable error is `queued` again, for later; one that
        finds more than its queue is meant for is `queued` again for the high-memory queue.

        Args:
            ingestion_id: Whose run it is.
            trigger: Why, where the row has to be made.
            run_id: The run that was queued.
            flow_run_id: The scheduler's run that this is.
            scheduled_for: The time of the schedule that it stands for. Of several that are late the first is carried
                out.
            queue: The scheduler's work queue that this process works for; None: it is not known, or there is none.
                Then the run is carried out here, whatever it finds.

        Raises:
            WrongDatabaseError: The database has no such ingestion or run.
            AutoloaderError: The database cannot be used.
        """
        store = self._store
        ingestion = store.ingestion(ingestion_id, deleted=True)
        if ingestion is None or (run_id is not None and store.run(run_id) is None):
            what = f"ingestion {ingestion_id}" if ingestion is None else f"run {run_id}"
            raise WrongDatabaseError(f"The database {self._settings.database} has no {what}.")
        store.settle_dead_runs(self._settings.retry, ingestion_id)
        found = self._find(ingestion_id, run_id, flow_run_id, trigger)
        if found is None:
            method = Method.DIRECT if flow_run_id is None else Method.PREFECT
            run = NewRun(uuid.uuid4().hex, ingestion_id, trigger, method)
            try:
                found = store.queue_run(replace(run, flow_run_id=flow_run_id, scheduled_for=scheduled_for))
            except (ConflictError, NotFoundError) as refusal:
                return Execution(None, refusal.message)
        return self._begin(ingestion, found, queue)

    def execute_run(self, run_id: str) -> Execution:
        """Carry out a run that was queued.

        Raises:
            WrongDatabaseError: The database has no such run.
            AutoloaderError: The database cannot be used.
        """
        run = self._store.run(run_id)
        if run is None:
            raise WrongDatabaseError(f"The database {self._settings.database} has no run {run_id}.")
        return self.execute(run.ingestion_id, run.trigger, run_id=run_id)

    # --- which run ------------------------------------------------------------------------------------------------

    def _find(
        self, ingestion_id: str, run_id: str | None, flow_run_id: str | None, trigger: Trigger
    ) -> RunRecord | None:
        if run_id is not None:
            if flow_run_id is not None:
                self._store.set_flow_run(run_id, flow_run_id)
            return self._store.run(run_id)
        if flow_run_id is None:
            return None
        found = self._store.run_of_flow_run(flow_run_id)
        if found is not None or trigger is Trigger.SCHEDULED:
            return found
        # Whoever queued it may not have come to note its flow run.
        waiting = self._store.run_at_work(ingestion_id)
        if (
            waiting is None
            or waiting.status is not RunStatus.QUEUED
            or waiting.flow_run_id is not None
            or waiting.method is not Method.PREFECT
        ):
            return None
        self._store.set_flow_run(waiting.id, flow_run_id)
        return self._store.run(waiting.id)

    # --- carry it out ---------------------------------------------------------------------------------------------

    def _begin(self, ingestion: Ingestion, run: RunRecord, queue: str | None) -> Execution:
        left = self._left(ingestion, run)
        if left is not None:
            return left
        got = self._acquired(ingestion.id, run.id)
        if not isinstance(got, Lease):
            reason = f"Run {got.run_id} (process {got.owner.pid} on {got.owner.host}) is at work on this ingestion."
            return Execution(self._store.cancel_queued(run.id, reason), reason)
        try:
            begun = self._store.begin_run(run.id)
            if begun is None:
                return self._not_begun(run.id)
            most_bytes = self._most_bytes(begun, queue)
            attempt = _Attempt(self._store, self._load, self._settings, ingestion, begun, got, most_bytes)
            ended = attempt.carry_out()
        finally:
            with suppress(AutoloaderError):
                # It runs out by itself.
                self._store.release(got)
        if ended.handed_over_at != begun.handed_over_at:
            return self._handed_over(ended)
        return Execution(ended, given_back=attempt.given_back)

    def _most_bytes(self, run: RunRecord, queue: str | None) -> int | None:
        """How much it may find here; None: whatever there is. A run is handed over once, so never to and fro."""
        settings = self._settings
        stays = run.method is Method.DIRECT or run.handed_over_at is not None
        return None if stays or queue in {None, settings.high_memory_queue} else settings.high_memory_bytes

    def _handed_over(self, run: RunRecord) -> Execution:
        """Have its next flow run begun. Where that cannot be done now, the reconciler does it, with the same key."""
        log.info(
            "run_handed_over", run_id=run.id, ingestion_id=run.ingestion_id, queue=self._settings.high_memory_queue
        )
        ingestion = self._store.ingestion(run.ingestion_id)
        if self._hand_on is not None and ingestion is not None and ingestion.deployment is not None:
            try:
                self._store.set_flow_run(run.id, self._hand_on(ingestion, run))
            except SchedulerUnavailableError as error:
                log.warning("run_not_handed_on", run_id=run.id, reason=str(error))
        return Execution(self._store.run(run.id) or run, " ".join(run.warnings))

    def _left(self, ingestion: Ingestion, run: RunRecord) -> Execution | None:
        """Why this process does not carry it out; None: it is to."""
        if run.is_over:
            return Execution(run, f"Run {run.id} is over.")
        if self._store.is_run_alive(run.id):
            return Execution(run, f"Run {run.id} is at work already.")
        state = "deleted" if ingestion.deleted_at else ingestion.status.value
        if state == IngestionStatus.ACTIVE:
            return None
        reason = f"The ingestion is {state}: its runs do not begin."
        return Execution(self._store.cancel_queued(run.id, reason), reason)

    def _acquired(self, ingestion_id: str, run_id: str) -> Lease | LeaseHolder:
        """The ingestion's lease, or who holds it: a run at work.

        One that is over by its row is about to give its lease back, and is waited for; the lease of a process that
        died on the way runs out.
        """
        deadline = time.monotonic() + self._settings.lease_s + LEASE_GRACE_S
        while True:
            got = self._store.acquire(ingestion_id, run_id, self._owner, self._settings.lease_s)
            if isinstance(got, Lease) or time.monotonic() > deadline:
                return got
            holder = self._store.run(got.run_id)
            if holder is None or not holder.is_over:
                return got
            time.sleep(LEASE_PAUSE_S)

    def _not_begun(self, run_id: str) -> Execution:
        with suppress(ConflictError):
            self._store.request_cancel(run_id)
        return Execution(self._store.run(run_id), f"Run {run_id} was cancelled before it began.")


class _Attempt:
    """One attempt of one run, under its lease."""

    def __init__(  # noqa: PLR0917 - each is needed once
        self,
        store: ServiceStore,
        load: Load,
        settings: ExecutionSettings,
        ingestion: Ingestion,
        run: RunRecord,
        lease: Lease,
        most_bytes: int | None,
    ) -> None:
        self._store = store
        self._load = load
        self._settings = settings
        self._ingestion = ingestion
        self._run = run
        self._lease = lease
        self._most_bytes = most_bytes
        self._report = RunReport(run_id=run.id, table=ingestion.table)
        self._interruption = Interruption()
        self._teller = RunTeller(store, run, settings.clean)
        self._ended: RunRecord | None = None
        self.given_back = False

    def carry_out(self) -> RunRecord:
        """Load, and keep how it ended."""
        ids = {"run_id": self._run.id, "ingestion_id": self._ingestion.id, "flow_run_id": self._run.flow_run_id}
        with bound(**{name: value for name, value in ids.items() if value}), self._teller.telling():
            return self._carry_out()

    def _carry_out(self) -> RunRecord:
        log.info("run_begins", attempt=self._run.attempts)
        vigil = Vigil(
            self._store,
            self._lease,
            self._settings.lease_s,
            wants_end=lambda: self._store.is_cancel_requested(self._run.id),
            timeout_s=self._settings.timeout_s,
            interruption=self._interruption,
        )
        with self._interruption.armed(), vigil.watching():
            try:
                self._load_it()
            except AutoloaderError as error:
                self._end(error)
            except (RunCancelled, RunGivenBack, RunTimedOut, RunTooLarge) as stopped:
                self._end(stopped)
            except BaseException as error:
                # What nobody expected, and signals to the process: kept with the run, and no less raised.
                self._end(error)
                raise
        ended = self._ended or self._store.run(self._run.id)
        assert ended is not None  # noqa: S101 - rows of runs stay while their ingestion is at work
        log.info("run_ended", status=ended.status.value, rows=ended.rows_loaded)
        return ended

    def _load_it(self) -> None:
        ingestion = self._ingestion
        if ingestion.cluster_id != LOCAL_CLUSTER:
            raise ClusterUnknownError(
                f"The cluster {ingestion.cluster_id!r} is not registered, so nothing can run on it."
            )
        keys = self._run.only_keys
        only = None if keys is None else frozenset(keys)
        order = RunOrder(ingestion.id, self._report, self._end, only, self._most_bytes)
        request = load_request(ingestion, self._store.credentials(ingestion.id), self._settings.home)
        self._load(request, self._teller, order)
        # Once more where it could not be kept while the load was at it.
        self._end(self._report.stopped_by)

    def _end(self, error: BaseException | None) -> None:
        """Keep how it ended, once."""
        self._interruption.disarm()
        if self._ended is not None:
            return
        if isinstance(error, RunTooLarge):
            reason = self._why_elsewhere()
            self._ended = self._store.hand_over_run(self._report, reason, attempt=self._run.attempts)
            return
        if isinstance(error, RunGivenBack):
            self._ended = self._store.give_run_back(self._run.id, attempt=self._run.attempts)
            self.given_back = self._ended.status is RunStatus.QUEUED
            return
        stop = self._stop(error)
        if stop is not None:
            log.warning("run_stopped", code=stop.code, reason=stop.message)
        report = self._report
        log.info("run_ends", status=report.status.value, files=report.files_loaded, rows=report.rows_loaded)
        # Whoever sees that the run is over finds the last line of its log.
        self._teller.close()
        self._clean_report()
        self._ended = self._store.end_run(
            self._report,
            stop,
            self._settings.retry,
            attempt=self._run.attempts,
            # What came in the midst of anything may have come when a batch was closed, and not yet in the report.
            by_ledger=isinstance(error, StoppedByUser),
        )
        if stop is None:
            self._store.set_discovered(self._ingestion.id, self._report.discovered_bytes)

    def _why_elsewhere(self) -> str:
        settings = self._settings
        most_gb = settings.high_memory_bytes / GIB
        return (
            f"It found more than HIGH_MEMORY_THRESHOLD_GB ({most_gb:.5g}) of new files and was handed over to the work "
            f"queue {settings.high_memory_queue}: a worker of that queue carries it out."
        )

    def _stop(self, error: BaseException | None) -> RunStop | None:
        """What ended the attempt before its end; the report's status is set to what that means."""
        report = self._report
        if isinstance(error, NoMatchError):
            # A standing order for files to come, none of which has come yet.
            report.warnings.append(error.message)
            error = None
        if error is None:
            report.settle()
            return None
        if isinstance(error, RunCancelled):
            report.status = RunStatus.CANCELLED
            return None
        report.status = RunStatus.FAILED
        told = self._told(error)
        return RunStop(told.code, self._settings.clean(str(told)), retryable=isinstance(told, RetriableError))

    def _clean_report(self) -> None:
        """Take secrets out of what is kept with the run: messages may quote what a library or a server said."""
        report, clean = self._report, self._settings.clean
        report.warnings[:] = map(clean, report.warnings)
        report.errors[:] = [replace(one, message=clean(one.message)) for one in report.errors]

    def _told(self, error: BaseException) -> AutoloaderError:
        if isinstance(error, AutoloaderError):
            return error
        if isinstance(error, RunTimedOut):
            return TimedOutError(f"The run took longer than {self._settings.timeout_s:g} s and was ended.")
        if isinstance(error, Exception) or type(error).__module__ == _PANICS:
            # Cleaned before it is cut: half a secret would not be known for one.
            said = self._settings.clean(str(error)).splitlines() or [""]
            return InternalError(f"{type(error).__name__}: {said[0][:300]}")
        return RunDiedError("The process was told to end before the run did.")


def load_request(ingestion: Ingestion, credentials: Mapping[str, str], home: str) -> LoadRequest:
    """What a run of the ingestion loads where."""
    catalog, _, rest = ingestion.table.partition(".")
    return LoadRequest(
        path=absolute_path(str(ingestion.document["source"]["path"]), home),
        table=parse_table_name(f"{catalog}.{rest}", default_catalog=catalog),
        values=values_of(ingestion.document),
        credentials=dict(credentials) or None,
    )


def absolute_path(path: str, home: str) -> str:
    """A source's path, a relative one below `home`."""
    is_relative = "://" not in path and not path.startswith("/")
    return f"{home}/{path}" if is_relative else path
