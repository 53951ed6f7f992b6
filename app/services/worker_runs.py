"""What a worker has to say about the runs that it carries out, in our own rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.domain.errors import AutoloaderError, RunOverError
from app.domain.events import EventLog
from app.domain.ingestions import RunRecord
from app.domain.runs import RunReport, RunStatus
from app.domain.service import RetryPolicy, RunStop

log = EventLog(__name__)


class Rows(Protocol):
    """What of our database is needed here; `domain.service` has the promises."""

    def run(self, run_id: str) -> RunRecord | None:
        """The run of that id."""
        ...

    def run_of_flow_run(self, flow_run_id: str) -> RunRecord | None:
        """The run that the flow run carries out."""
        ...

    def request_cancel(self, run_id: str) -> RunRecord:
        """Ask for a run's end."""
        ...

    def end_run(
        self,
        report: RunReport,
        stop: RunStop | None,
        retry: RetryPolicy,
        *,
        attempt: int | None = None,
        by_ledger: bool = False,
    ) -> RunRecord:
        """Keep how an attempt ended."""
        ...

    def settle_dead_runs(self, retry: RetryPolicy, ingestion_id: str | None = None) -> list[RunRecord]:
        """Settle every run whose process is gone."""
        ...


@dataclass(frozen=True)
class OfFlowRun:
    """Which run a flow run carries out: by its id, or as its parameters name it."""

    flow_run_id: str
    parameters: Mapping[str, Any]


class WorkerRuns:
    """The runs of one worker. That the database does not answer is told, and no error: the reconciler settles all."""

    def __init__(self, rows: Rows, retry: RetryPolicy) -> None:
        self._rows = rows
        self._retry = retry

    def cancel(self, which: OfFlowRun) -> bool:
        """Ask for its end, or end it where no process is at work on it; False where there is no row to be ended."""
        try:
            run = self._find(which)
            if run is None:
                return False
            self._rows.request_cancel(run.id)
        except RunOverError:
            return True
        except AutoloaderError as error:
            log.warning("run_not_cancelled", flow_run_id=which.flow_run_id, reason=str(error))
            return False
        return True

    def fail(self, which: OfFlowRun, error: AutoloaderError) -> None:
        """End a run whose process we ended, for good: nothing that somebody has to change would change by itself."""
        try:
            run = self._find(which)
            if run is None or run.is_over:
                return
            report = RunReport(run.id, run.table, status=RunStatus.FAILED)
            stop = RunStop(error.code, str(error))
            self._rows.end_run(report, stop, self._retry, attempt=run.attempts, by_ledger=True)
        except AutoloaderError as unsaid:
            log.warning("run_not_failed", flow_run_id=which.flow_run_id, reason=str(unsaid))

    def settle(self, which: OfFlowRun) -> None:
        """Settle the ingestion's runs after their process died: here that is known at once, elsewhere by the lease."""
        ingestion_id = which.parameters.get("ingestion_id")
        try:
            if ingestion_id:
                self._rows.settle_dead_runs(self._retry, str(ingestion_id))
        except AutoloaderError as error:
            log.warning("run_not_settled", flow_run_id=which.flow_run_id, reason=str(error))

    def _find(self, which: OfFlowRun) -> RunRecord | None:
        found = self._rows.run_of_flow_run(which.flow_run_id)
        named = which.parameters.get("run_id")
        return found or (self._rows.run(str(named)) if named else None)
