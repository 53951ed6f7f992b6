"""The main job: one run of a load, from the lease to the report."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial

from app.domain.errors import (
    AutoloaderError,
    NoMatchError,
    RunInProgressError,
    SourceContainsWarehouseError,
    StoppedByUser,
)
from app.domain.events import EventLog
from app.domain.failpoints import Step
from app.domain.ledger import Ledger
from app.domain.runs import Lease, RunReport, RunStatus, TableRecord
from app.domain.table import LOAD_INGESTION, TableHead
from app.domain.table_checks import batches_behind
from app.domain.watch import Watcher
from app.services.preflight import LoadRequest, Prepared, prepare
from app.services.rebuilding import highest_epoch, known_ingestion
from app.services.run import Job, LoadPorts, Run, RunOrder, RunSettings

log = EventLog(__name__)

_POLL_S = 0.2


class LoadService:
    """Runs loads of one catalog's tables."""

    def __init__(self, ports: LoadPorts, settings: RunSettings) -> None:
        self._ports = ports
        self._settings = settings

    def load(
        self,
        request: LoadRequest,
        watcher: Watcher,
        prepared: Prepared | None = None,
        *,
        order: RunOrder | None = None,
    ) -> RunReport:
        """Load what is new, once.

        Args:
            request: What to load where.
            watcher: Told how it goes on.
            prepared: Its source, where that was looked at already.
            order: The service's run that this is; None: a run of the command line's own.

        Returns:
            What was done; `errors` names every file that failed, `stopped_by` is what ended the run before its end.
            What was committed before that stays.

        Raises:
            AutoloaderError: The run could not begin.
            RunTooLarge: It found more than its order lets it load here.
        """
        failpoints = self._ports.failpoints
        if prepared is None:
            with failpoints.step("source_listed"):
                prepared = prepare(request, self._ports.open_source, self._ports.keep_out)
        with failpoints.step("table_read"):
            head = self._ports.catalog.head(request.table)
        if head is not None and prepared.source.can_find_below(head.location):
            raise SourceContainsWarehouseError(f"The source {request.path} contains the table at {head.location}.")
        if head is None and not prepared.first:
            raise NoMatchError(f"No file in {request.path} matches, and the table {request.table} does not exist yet.")
        if head is None:
            # Where there is no table nothing is loaded: the engine comes up while the ledger is opened, or made.
            self._ports.engine.expect([file for file in prepared.first if file.size_bytes])
        if not self._ports.has_ledger():
            # Refused before an empty ledger is made beside a table that was loaded with another one.
            mine = head.properties.get(LOAD_INGESTION) if head else None
            batches_behind(str(request.table), head, {mine: 0} if mine else {})
        ledger = self._ports.open_ledger()
        record = ledger.ensure_table(str(request.table))
        ingestion_id = order.ingestion_id if order else self._load_ingestion(ledger, record, head)
        behind = batches_behind(record.name, head, ledger.committed_batches(record), ledger.foreign_ingestions(record))
        above = highest_epoch(self._ports.storage, head, ingestion_id, behind=ingestion_id in behind)
        report = order.report if order else RunReport(run_id=uuid.uuid4().hex, table=str(request.table))
        lease = self._acquire(ledger, ingestion_id, report.run_id, request.wait_s, watcher, above)
        try:
            run = Run(self._ports, self._settings, Job(request, prepared, ledger, lease, watcher, report, order))
            # From here on: the ledger may take its time over the run's row too.
            with run.kept_alive():
                if order is None:
                    with failpoints.step("run_started"):
                        ledger.start_run(report.run_id, ingestion_id, record)
                run.work()
        except AutoloaderError as error:
            report.stopped_by = error
        except BaseException as error:
            report.status = RunStatus.CANCELLED if isinstance(error, StoppedByUser) else RunStatus.FAILED
            self._finish(ledger, report, lease, error, order)
            if isinstance(error, StoppedByUser):
                error.report = report
            raise
        report.settle()
        self._finish(ledger, report, lease, report.stopped_by, order)
        return report

    @staticmethod
    def _load_ingestion(ledger: Ledger, record: TableRecord, head: TableHead | None) -> str:
        """The id under which the command line loads the table."""
        mine = known_ingestion(ledger, record, head)
        return ledger.ensure_load_ingestion(record, mine or uuid.uuid4().hex)

    def _acquire(  # noqa: PLR0917 - each is needed once
        self, ledger: Ledger, ingestion_id: str, run_id: str, wait_s: float, watcher: Watcher, above_epoch: int
    ) -> Lease:
        deadline = time.monotonic() + wait_s
        said = False
        while True:
            self._ports.failpoints.before("lease_taken")
            got = ledger.acquire(
                ingestion_id, run_id, self._ports.owner, self._settings.lease_s, above_epoch=above_epoch
            )
            if isinstance(got, Lease):
                self._ports.failpoints.after("lease_taken")
                return got
            who = f"run {got.run_id} (process {got.owner.pid} on {got.owner.host})"
            if time.monotonic() >= deadline:
                raise RunInProgressError(f"This table is being loaded by {who}.", run_id=got.run_id)
            if not said:
                watcher.note(f"Waiting for {who}, which is at work on this table, for up to {wait_s:.0f} s.")
                said = True
            time.sleep(_POLL_S)

    def _finish(
        self,
        ledger: Ledger,
        report: RunReport,
        lease: Lease,
        error: BaseException | None,
        order: RunOrder | None,
    ) -> None:
        said = None if error is None else str(error) or type(error).__name__
        finish = partial(order.finish, error) if order else partial(ledger.finish_run, report, said)
        steps: tuple[tuple[Step, Callable[[], None]], ...] = (
            ("run_finished", finish),
            ("lease_released", partial(ledger.release, lease)),
        )
        for name, step in steps:
            try:
                with self._ports.failpoints.step(name):
                    step()
            except AutoloaderError as failure:
                # The lease runs out by itself and the next run settles what is open; the first error matters more.
                log.warning("run_not_closed", run_id=report.run_id, reason=str(failure))
