"""The rows of runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sqlalchemy import select, update

from app.domain.runs import RunReport, RunStatus, TableRecord
from app.persistence.counters import count, of_end
from app.persistence.schema import ingestions, runs
from app.persistence.store import SqlStore, storable
from app.persistence.telling import tell_run


class SqlRuns(SqlStore):
    """Keeps the promises of `domain.ledger.Runs`."""

    def start_run(self, run_id: str, ingestion_id: str, table: TableRecord) -> None:
        """Make the row of a run that works now."""
        now = datetime.now(UTC)
        with self._write() as connection:
            made = connection.execute(
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
                .returning(runs.c.id)
            ).first()
            if made is not None:
                tell_run(connection, run_id)

    def finish_run(self, report: RunReport, error: str | None = None) -> None:
        """Keep how the run ended."""
        now = datetime.now(UTC)
        with self._write() as connection:
            this = runs.c.id == report.run_id
            row = connection.execute(select(runs.c.ingestion_id, runs.c.started_at).where(this)).first()
            if row is None:
                return
            connection.execute(
                update(runs)
                .where(this)
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
                    ended_at=now,
                )
            )
            if report.status is RunStatus.SUCCESS:
                loaded = ingestions.c.id == row.ingestion_id
                connection.execute(update(ingestions).where(loaded).values(last_success_at=now))
            counted = of_end(report.status, (now - row.started_at).total_seconds())
            counted["commit_retries", ""] = report.commit_retries
            if report.stopped_by is not None:
                counted["stops", report.stopped_by.code] = 1
            count(connection, counted)
            tell_run(connection, report.run_id)
