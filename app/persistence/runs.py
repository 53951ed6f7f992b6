"""The rows of runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sqlalchemy import update

from app.domain.runs import RunReport, RunStatus, TableRecord
from app.persistence.schema import runs
from app.persistence.store import SqlStore, storable


class SqlRuns(SqlStore):
    """Keeps the promises of `domain.ledger.Runs`."""

    def start_run(self, run_id: str, ingestion_id: str, table: TableRecord) -> None:
        """Make the row of a run that works now."""
        now = datetime.now(UTC)
        with self._write() as connection:
            connection.execute(
                self._insert(runs)
                .values(
                    id=run_id,
                    ingestion_id=ingestion_id,
                    table_id=table.id,
                    trigger="manual",
                    method="direct",
                    status=RunStatus.RUNNING.value,
                    files_loaded=0,
                    files_failed=0,
                    files_skipped=0,
                    files_known=0,
                    rows_loaded=0,
                    stored_bytes=0,
                    warnings="[]",
                    created_at=now,
                    started_at=now,
                )
                .on_conflict_do_nothing()
            )

    def finish_run(self, report: RunReport, error: str | None = None) -> None:
        """Keep how the run ended."""
        with self._write() as connection:
            connection.execute(
                update(runs)
                .where(runs.c.id == report.run_id)
                .values(
                    status=report.status.value,
                    files_loaded=report.files_loaded,
                    files_failed=report.files_failed,
                    files_skipped=report.files_skipped,
                    files_known=report.files_known,
                    rows_loaded=report.rows_loaded,
                    stored_bytes=report.stored_bytes,
                    snapshot_id=report.snapshot_id,
                    warnings=json.dumps(report.warnings),
                    error=storable(error),
                    ended_at=datetime.now(UTC),
                )
            )
