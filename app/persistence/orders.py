"""The runs of the service: queued first, at work under a lease, and settled when their process died."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, literal, or_, select, tuple_, update

from app.domain.errors import (
    ConflictError,
    FileFailure,
    LoadIngestionError,
    NotActiveError,
    NotFoundError,
    RunAtWorkError,
    RunDiedError,
    RunOverError,
)
from app.domain.files import FileState
from app.domain.ingestions import IngestionStatus, Method, RunRecord, Trigger
from app.domain.live import EventKind, RunProgress
from app.domain.runs import RunReport, RunStatus
from app.domain.service import NewRun, RetryPolicy, RunStop
from app.persistence.counters import count, of_end
from app.persistence.leases import SqlLeases, holder
from app.persistence.live import add_line
from app.persistence.schema import batches, files, ingestions, leases, runs, tables
from app.persistence.store import storable
from app.persistence.telling import tell_run
from app.persistence.telling_webhooks import tell_webhooks

_QUEUED, _RUNNING = RunStatus.QUEUED.value, RunStatus.RUNNING.value
_NOT_OVER = (_QUEUED, _RUNNING)
# So many failed files are kept with a run; the ledger has them all.
ERRORS_KEPT = 1_000


class SqlRunOrders(SqlLeases):
    """Keeps the promises of `domain.service.RunOrders`."""

    # --- queue ----------------------------------------------------------------------------------------------------

    def queue_run(self, new: NewRun, *, active_only: bool = True) -> RunRecord:
        """Make the run's row, or find it."""
        with self._write() as connection:
            this = select(ingestions).where(ingestions.c.id == new.ingestion_id).with_for_update()
            ingestion = connection.execute(this).first()
            if ingestion is None or ingestion.deleted_at is not None:
                raise NotFoundError(f"There is no ingestion {new.ingestion_id}.")
            known = _known(connection, new)
            if known is not None:
                return _record(known)
            _refuse(ingestion, active_only=active_only)
            at_work = connection.execute(
                select(runs.c.id, runs.c.status).where(
                    runs.c.ingestion_id == new.ingestion_id, runs.c.status.in_(_NOT_OVER)
                )
            ).first()
            if at_work is not None:
                what = "is queued" if at_work.status == _QUEUED else "is at work"
                raise RunAtWorkError(f"Run {at_work.id} of this ingestion {what}.", run_id=at_work.id)
            # In this order: a run that ends between both looks is seen by the second one.
            _refuse_served(connection, new)
            connection.execute(self._insert(runs).values(_queued(new, ingestion.table_id, self._now(connection))))
            tell_run(connection, new.id)
            return _record(_row(connection, new.id))

    def run(self, run_id: str) -> RunRecord | None:
        """The run of that id."""
        return self._one(runs.c.id == run_id)

    def run_of_flow_run(self, flow_run_id: str) -> RunRecord | None:
        """The run that the flow run carries out."""
        return self._one(runs.c.flow_run_id == flow_run_id)

    def run_at_work(self, ingestion_id: str) -> RunRecord | None:
        """The run that is queued or running."""
        return self._one((runs.c.ingestion_id == ingestion_id) & runs.c.status.in_(_NOT_OVER))

    def _one(self, which: ColumnElement[bool]) -> RunRecord | None:
        with self._read() as connection:
            row = connection.execute(_select().where(which).order_by(runs.c.created_at)).first()
            return None if row is None else _record(row)

    def list_runs(self, ingestion_id: str, *, limit: int, after: tuple[datetime, str] | None = None) -> list[RunRecord]:
        """A page of them, newest first."""
        statement = _select().where(runs.c.ingestion_id == ingestion_id)
        if after is not None:
            statement = statement.where(tuple_(runs.c.created_at, runs.c.id) < _position(after))
        statement = statement.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit + 1)
        with self._read() as connection:
            return [_record(row) for row in connection.execute(statement)]

    def set_flow_run(self, run_id: str, flow_run_id: str) -> None:
        """Note which flow run carries it out, unless that one already has a run."""
        other = runs.alias("other")
        taken = exists(select(other.c.id).where(other.c.flow_run_id == flow_run_id))
        with self._write() as connection:
            changed = connection.execute(
                update(runs).where(runs.c.id == run_id, ~taken).values(flow_run_id=flow_run_id)
            )
            if changed.rowcount:
                tell_run(connection, run_id, EventKind.RUN_UPDATED)

    def reroute_run(self, run_id: str, method: Method) -> bool:
        """Have a queued run carried out another way."""
        with self._write() as connection:
            changed = connection.execute(
                update(runs)
                .where(runs.c.id == run_id, runs.c.status == _QUEUED)
                .values(method=method.value, claimed_until=None)
            )
            if changed.rowcount:
                tell_run(connection, run_id, EventKind.RUN_UPDATED)
            return changed.rowcount == 1

    def claim_run(self, run_id: str, *, for_s: float) -> bool:
        """Be the one that starts a process for it."""
        with self._write() as connection:
            now = self._now(connection)
            changed = connection.execute(
                update(runs)
                .where(runs.c.id == run_id, _is_due(now))
                .values(claimed_until=now + timedelta(seconds=for_s))
            )
            return changed.rowcount == 1

    def due_runs(self, method: Method) -> list[RunRecord]:
        """Queued runs that are due, oldest first."""
        with self._read() as connection:
            due = _is_due(self._now(connection))
            rows = connection.execute(
                _select().where(due, runs.c.method == method.value).order_by(runs.c.created_at, runs.c.id)
            )
            return [_record(row) for row in rows]

    def open_runs(self, method: Method) -> list[RunRecord]:
        """Queued runs and those at work, oldest first."""
        wanted = runs.c.status.in_(_NOT_OVER) & (runs.c.method == method.value)
        service = ingestions.c.kind == "service"
        with self._read() as connection:
            statement = _select().join(ingestions, ingestions.c.id == runs.c.ingestion_id).where(wanted, service)
            return [_record(row) for row in connection.execute(statement.order_by(runs.c.created_at, runs.c.id))]

    # --- at work --------------------------------------------------------------------------------------------------

    def begin_run(self, run_id: str) -> RunRecord | None:
        """Note that an attempt begins."""
        with self._write() as connection:
            changed = connection.execute(
                update(runs)
                .where(runs.c.id == run_id, runs.c.status.in_(_NOT_OVER), runs.c.cancel_requested_at.is_(None))
                .values(
                    status=_RUNNING,
                    attempts=runs.c.attempts + 1,
                    started_at=func.coalesce(runs.c.started_at, _micros(self._now(connection))),
                    next_attempt_at=None,
                    claimed_until=None,
                    progress=None,
                )
            )
            if not changed.rowcount:
                return None
            tell_run(connection, run_id)
            return _record(_row(connection, run_id))

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
        found = self.run(report.run_id)
        if found is None:
            raise NotFoundError(f"There is no run {report.run_id}.")
        done, errors = self._done(report, by_ledger=by_ledger or found.attempts > 1)
        with self._write() as connection:
            row = _locked(connection, report.run_id)
            stopped = _stopped(report, stop)
            if row.status not in _NOT_OVER or attempt not in (None, row.attempts):
                count(connection, stopped)
                return _record(_row(connection, report.run_id))
            now = self._now(connection)
            if stop is not None and stop.retryable and _goes_on(row, retry):
                ending = _again(now, retry)
            else:
                ending = {"status": report.status.value, "ended_at": now, "next_attempt_at": None}
            connection.execute(
                update(runs)
                .where(runs.c.id == report.run_id)
                .values(
                    **done,
                    **ending,
                    warnings=json.dumps(report.warnings),
                    error=storable(stop.message) if stop else None,
                    errors=_as_text(errors, stop),
                    progress=None,
                )
            )
            ended = _ended(connection, row, ending)
            count(connection, stopped | ended)
            tell_webhooks(connection, report.run_id, now)
            tell_run(connection, report.run_id)
            return _record(_row(connection, report.run_id))

    def hand_over_run(self, report: RunReport, reason: str, *, attempt: int) -> RunRecord:
        """Queue a run again because it found more than is to be loaded where it is at work."""
        found = self.run(report.run_id)
        if found is None:
            raise NotFoundError(f"There is no run {report.run_id}.")
        done, errors = self._done(report, by_ledger=found.attempts > 1)
        with self._write() as connection:
            # The lease before the run, as everybody takes them.
            self._locked_row(connection, found.ingestion_id)
            row = _locked(connection, report.run_id)
            if row.status != _RUNNING or row.attempts != attempt or row.handed_over_at is not None:
                return _record(_row(connection, report.run_id))
            values = done | {"errors": _as_text(errors, None)} | _handed_over(row, self._now(connection), reason)
            connection.execute(update(runs).where(runs.c.id == report.run_id).values(values))
            connection.execute(
                update(leases)
                .where(leases.c.ingestion_id == found.ingestion_id, leases.c.run_id == report.run_id)
                .values(run_id=None, expires_at=0.0)
            )
            connection.execute(
                update(ingestions)
                .where(ingestions.c.id == found.ingestion_id)
                .values(discovered_bytes=report.discovered_bytes)
            )
            count(connection, _ended(connection, row, values))
            tell_run(connection, report.run_id)
            return _record(_row(connection, report.run_id))

    def _done(self, report: RunReport, *, by_ledger: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What a run did until now, and its failed files."""
        seen = {"files_skipped": report.files_skipped, "files_known": report.files_known}
        if by_ledger:
            return self._counted(report) | seen, self._errors(report)
        return _counts(report) | seen, [_error(one) for one in report.errors]

    def _counted(self, report: RunReport) -> dict[str, Any]:
        """What a run did, by the ledger: one that was killed left no report, that of one that was stopped may lag."""
        table = select(runs.c.table_id).where(runs.c.id == report.run_id).scalar_subquery()
        mine = (files.c.table_id == table) & (files.c.run_id == report.run_id)
        loaded = mine & (files.c.state == FileState.SUCCESS.value)
        with self._read() as connection:
            number, rows, stored = connection.execute(
                select(
                    func.count(),
                    func.coalesce(func.sum(files.c.rows), 0),
                    func.coalesce(func.sum(files.c.size_bytes), 0),
                ).where(loaded)
            ).one()
            failed = connection.execute(
                select(func.count()).select_from(files).where(mine, files.c.state == FileState.FAILED.value)
            ).scalar_one()
            snapshot = connection.execute(
                select(batches.c.snapshot_id)
                .where(batches.c.run_id == report.run_id, batches.c.snapshot_id.is_not(None))
                .order_by(batches.c.number.desc())
            ).scalar()
        return _counts(report) | {
            "files_loaded": number,
            "rows_loaded": rows,
            "stored_bytes": stored,
            "files_failed": failed,
            "snapshot_id": snapshot or report.snapshot_id,
        }

    def _errors(self, report: RunReport) -> list[dict[str, Any]]:
        table = select(runs.c.table_id).where(runs.c.id == report.run_id).scalar_subquery()
        failed = (files.c.table_id == table) & (files.c.run_id == report.run_id)
        with self._read() as connection:
            rows = connection.execute(
                select(files).where(failed, files.c.state == FileState.FAILED.value).limit(ERRORS_KEPT)
            )
            return [
                {
                    "file": row.key,
                    "category": row.category,
                    "line": row.line,
                    "message": row.message,
                    "retryable": row.retryable,
                }
                for row in rows
            ]

    # --- ends -----------------------------------------------------------------------------------------------------

    def give_run_back(self, run_id: str, *, attempt: int) -> RunRecord:
        """Queue a run at work again, for whoever takes it up."""
        with self._write() as connection:
            row = _locked(connection, run_id)
            if row.status == _RUNNING and row.attempts == attempt:
                now = self._now(connection)
                if row.cancel_requested_at is not None:
                    values: dict[str, Any] = {"status": RunStatus.CANCELLED.value, "ended_at": now}
                else:
                    values = {"status": _QUEUED, "next_attempt_at": None, "claimed_until": None}
                connection.execute(update(runs).where(runs.c.id == run_id).values({**values, "progress": None}))
                count(connection, _ended(connection, row, values))
                tell_run(connection, run_id)
            return _record(_row(connection, run_id))

    def cancel_queued(self, run_id: str, reason: str) -> RunRecord:
        """End a run that nobody is at work on."""
        with self._write() as connection:
            row = _locked(connection, run_id)
            if row.status == _QUEUED:
                ending = {"status": RunStatus.CANCELLED.value, "ended_at": self._now(connection)}
                values = {**ending, "next_attempt_at": None, "claimed_until": None, "warnings": json.dumps([reason])}
                connection.execute(update(runs).where(runs.c.id == run_id).values(values))
                count(connection, _ended(connection, row, ending))
                tell_run(connection, run_id)
            return _record(_row(connection, run_id))

    def request_cancel(self, run_id: str) -> RunRecord:
        """Ask for a run's end."""
        found = self.run(run_id)
        if found is None:
            raise NotFoundError(f"There is no run {run_id}.")
        with self._write() as connection:
            lease = self._locked_row(connection, found.ingestion_id)
            row = _locked(connection, run_id)
            if row.status not in _NOT_OVER:
                raise RunOverError(f"Run {run_id} is over: it ended {row.status}.")
            now = self._now(connection)
            values: dict[str, Any] = {"cancel_requested_at": now}
            is_over = row.status == _QUEUED or not _is_held(lease, run_id, now)
            if is_over:
                values |= {"status": RunStatus.CANCELLED.value, "ended_at": now, "next_attempt_at": None}
            connection.execute(update(runs).where(runs.c.id == run_id).values(values))
            count(connection, _ended(connection, row, values) if is_over else {})
            tell_run(connection, run_id, None if is_over else EventKind.RUN_UPDATED)
            return _record(_row(connection, run_id))

    def is_cancel_requested(self, run_id: str) -> bool:
        """Whether its end is wanted."""
        with self._read() as connection:
            row = connection.execute(
                select(runs.c.cancel_requested_at, runs.c.status).where(runs.c.id == run_id)
            ).first()
            return row is None or row.cancel_requested_at is not None or row.status not in _NOT_OVER

    def settle_dead_runs(
        self, retry: RetryPolicy, ingestion_id: str | None = None, *, method: Method | None = None
    ) -> list[RunRecord]:
        """Settle every run whose process is gone."""
        statement = (
            select(runs.c.id, runs.c.ingestion_id)
            .join(ingestions, ingestions.c.id == runs.c.ingestion_id)
            .where(runs.c.status == _RUNNING, ingestions.c.kind == "service")
        )
        if ingestion_id is not None:
            statement = statement.where(runs.c.ingestion_id == ingestion_id)
        if method is not None:
            statement = statement.where(runs.c.method == method.value)
        with self._read() as connection:
            at_work = connection.execute(statement).all()
        settled = (self._settle(row.id, row.ingestion_id, retry) for row in at_work)
        return [run for run in settled if run is not None]

    def _settle(self, run_id: str, ingestion_id: str, retry: RetryPolicy) -> RunRecord | None:
        if self.is_run_alive(run_id):
            return None
        with self._write() as connection:
            # Under the lease's lock: whoever takes it for this run meanwhile begins when this is settled.
            lease = self._locked_row(connection, ingestion_id)
            row = _locked(connection, run_id)
            now = self._now(connection)
            if row.status != _RUNNING or _is_held(lease, run_id, now):
                return None
            self._note_death(connection, row, _after_death(row, now, retry), now)
            return _record(_row(connection, run_id))

    def note_not_begun(self, run_id: str, retry: RetryPolicy) -> RunRecord | None:
        """Count an attempt that never began."""
        with self._write() as connection:
            row = connection.execute(select(runs).where(runs.c.id == run_id).with_for_update()).first()
            if row is None or row.status != _QUEUED or row.claimed_until is None:
                return None
            now = self._now(connection)
            values = _after_death(row, now, retry) | {"attempts": row.attempts + 1}
            self._note_death(connection, row, values, now)
            return _record(_row(connection, run_id))

    @staticmethod
    def _note_death(connection: Connection, row: Row[Any], values: Mapping[str, Any], now: datetime) -> None:
        connection.execute(update(runs).where(runs.c.id == row.id).values({**values, "progress": None}))
        goes_on = " It goes on by itself." if values["status"] == _QUEUED else ""
        add_line(connection, row.id, "warning", f"The run's process ended before the run did.{goes_on}")
        count(connection, {("deaths", ""): 1} | _ended(connection, row, values))
        tell_webhooks(connection, row.id, now)
        tell_run(connection, row.id)

    def is_run_alive(self, run_id: str) -> bool:
        """Whether a live process holds the lease for it."""
        statement = select(leases).join(runs, runs.c.ingestion_id == leases.c.ingestion_id).where(runs.c.id == run_id)
        with self._read() as connection:
            row = connection.execute(statement).first()
            return row is not None and _is_held(row, run_id, self._now(connection))

    # --- what is known of the past --------------------------------------------------------------------------------

    def failed_keys(self, ingestion_id: str, *, run_id: str | None = None) -> list[str]:
        """Keys of files that failed."""
        statement = (
            select(files.c.key)
            .distinct()
            .join(tables, (tables.c.id == files.c.table_id) & (tables.c.generation == files.c.generation))
            .join(ingestions, ingestions.c.table_id == tables.c.id)
            .where(ingestions.c.id == ingestion_id, files.c.state == FileState.FAILED.value)
            .order_by(files.c.key)
        )
        if run_id is not None:
            statement = statement.where(files.c.run_id == run_id)
        with self._read() as connection:
            return list(connection.execute(statement).scalars())


def _position(after: tuple[datetime, str]) -> ColumnElement[Any]:
    return tuple_(_micros(after[0]), literal(after[1]))


def _micros(time: datetime) -> ColumnElement[Any]:
    return literal(time, runs.c.created_at.type)


def _is_due(now: datetime) -> ColumnElement[bool]:
    return and_(
        runs.c.status == _QUEUED,
        or_(runs.c.next_attempt_at.is_(None), runs.c.next_attempt_at <= now),
        or_(runs.c.claimed_until.is_(None), runs.c.claimed_until <= now),
    )


def _is_held(lease: Row[Any], run_id: str, now: datetime) -> bool:
    at_work = holder(lease, now.timestamp())
    return at_work is not None and at_work.run_id == run_id


def _after_death(row: Row[Any], now: datetime, retry: RetryPolicy) -> dict[str, Any]:
    """What becomes of a run whose process is gone."""
    if row.cancel_requested_at is not None:
        return {"status": RunStatus.CANCELLED.value, "ended_at": now}
    if _goes_on(row, retry):
        return _again(now, retry)
    error = RunDiedError()
    stop = RunStop(error.code, str(error), retryable=True)
    return {
        "status": RunStatus.FAILED.value,
        "ended_at": now,
        "error": error.message,
        "errors": _as_text([], stop),
        "next_attempt_at": None,
    }


def _handed_over(row: Row[Any], now: datetime, reason: str) -> dict[str, Any]:
    """What becomes of a run that is handed over."""
    if row.cancel_requested_at is not None:
        return {"status": RunStatus.CANCELLED.value, "ended_at": now}
    return {
        "status": _QUEUED,
        "handed_over_at": now,
        "progress": None,
        "next_attempt_at": None,
        "claimed_until": None,
        "warnings": json.dumps([reason]),
        "error": None,
    }


def _ended(connection: Connection, row: Row[Any], ending: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """What a run's end counts, and its ingestion's note of it; nothing where it goes on.

    Args:
        connection: With the transaction that ended it.
        row: The run as it was.
        ending: The values that were set.
    """
    status, ended_at = RunStatus(ending["status"]), ending.get("ended_at")
    if status is RunStatus.QUEUED or ended_at is None:
        return {}
    if status is RunStatus.SUCCESS:
        this = ingestions.c.id == row.ingestion_id
        connection.execute(update(ingestions).where(this).values(last_success_at=ended_at))
    return of_end(status, (ended_at - (row.started_at or ended_at)).total_seconds())


def _stopped(report: RunReport, stop: RunStop | None) -> dict[tuple[str, str], int]:
    """What an attempt counts, however it ended."""
    counted = {("commit_retries", ""): report.commit_retries}
    if stop is not None:
        counted["stops", stop.code] = 1
    return counted


def _goes_on(row: Row[Any], retry: RetryPolicy) -> bool:
    # The attempt that handed it over is none that failed.
    attempts = row.attempts - (row.handed_over_at is not None)
    return row.cancel_requested_at is None and attempts <= retry.times


def _again(now: datetime, retry: RetryPolicy) -> dict[str, Any]:
    return {"status": _QUEUED, "next_attempt_at": now + timedelta(seconds=retry.delay_s), "claimed_until": None}


def _refuse(ingestion: Row[Any], *, active_only: bool) -> None:
    if ingestion.kind != "service":
        raise LoadIngestionError
    if active_only and ingestion.status != IngestionStatus.ACTIVE.value:
        remedy = "" if ingestion.status == IngestionStatus.PAUSED.value else 'Set its status to "active" first.'
        raise NotActiveError(f"The ingestion is {ingestion.status}.", remedy=remedy)


def _refuse_served(connection: Connection, new: NewRun) -> None:
    """Let a time of the schedule pass that a run which is over has served.

    Only a run that began after it lets it pass, never a later time of the schedule that is due: nobody may have made a
    flow run for that one. A server that comes back after hours makes flow runs for times to come, not for those that
    were missed, and near a change of the clocks its times are not ours.
    """
    if new.scheduled_for is None:
        return
    over = (RunStatus.SUCCESS.value, RunStatus.PARTIAL.value, RunStatus.FAILED.value)
    statement = select(func.max(runs.c.started_at)).where(
        runs.c.ingestion_id == new.ingestion_id, runs.c.status.in_(over)
    )
    began_at: datetime | None = connection.execute(statement).scalar()
    if began_at is not None and began_at >= new.scheduled_for:
        raise ConflictError(
            f"The ingestion ran at {began_at:%Y-%m-%d %H:%M:%S} UTC, after {new.scheduled_for:%Y-%m-%d %H:%M} UTC."
        )


def _known(connection: Connection, new: NewRun) -> Row[Any] | None:
    which = runs.c.id == new.id
    if new.flow_run_id is not None:
        which = or_(which, runs.c.flow_run_id == new.flow_run_id)
    return connection.execute(_select().where(which)).first()


def _queued(new: NewRun, table_id: int, now: datetime) -> dict[str, Any]:
    return {
        "id": new.id,
        "ingestion_id": new.ingestion_id,
        "table_id": table_id,
        "trigger": new.trigger.value,
        "method": new.method.value,
        "status": _QUEUED,
        "retry_of": new.retry_of,
        "only_keys": None if new.only_keys is None else json.dumps(new.only_keys),
        "flow_run_id": new.flow_run_id,
        "created_at": now,
        "warnings": "[]",
        "files_loaded": 0,
        "files_failed": 0,
        "files_skipped": 0,
        "files_known": 0,
        "rows_loaded": 0,
        "stored_bytes": 0,
    }


def _select() -> Any:  # noqa: ANN401 - a select of these columns
    return select(runs, tables.c.name.label("table_name")).join(tables, tables.c.id == runs.c.table_id)


def _row(connection: Connection, run_id: str) -> Row[Any]:
    row: Row[Any] = connection.execute(_select().where(runs.c.id == run_id)).one()
    return row


def _locked(connection: Connection, run_id: str) -> Row[Any]:
    return connection.execute(select(runs).where(runs.c.id == run_id).with_for_update()).one()


def _counts(report: RunReport) -> dict[str, Any]:
    return {
        "files_loaded": report.files_loaded,
        "files_failed": report.files_failed,
        "rows_loaded": report.rows_loaded,
        "stored_bytes": report.stored_bytes,
        "files_replaced": report.files_replaced,
        "files_appended": report.files_appended,
        "snapshot_id": report.snapshot_id,
    }


def _error(failure: FileFailure) -> dict[str, Any]:
    return {
        "file": failure.key,
        "category": failure.category.value,
        "line": failure.line,
        "message": failure.message,
        "retryable": failure.retryable,
    }


def _as_text(errors: Sequence[Mapping[str, Any]], stop: RunStop | None) -> str:
    told = list(errors[:ERRORS_KEPT])
    if stop is not None:
        told.append(
            {"file": None, "category": stop.code, "line": None, "message": stop.message, "retryable": stop.retryable}
        )
    return storable(json.dumps(told)) or "[]"


def _record(row: Row[Any]) -> RunRecord:
    """A row as a noun."""
    errors = json.loads(row.errors) if row.errors else []
    if not errors and row.error:
        # A run of the command line keeps what stopped it as a sentence.
        errors = [{"file": None, "category": "failed", "line": None, "message": row.error, "retryable": False}]
    return RunRecord(
        id=row.id,
        ingestion_id=row.ingestion_id,
        table=row.table_name,
        trigger=Trigger(row.trigger),
        method=Method(row.method),
        status=RunStatus(row.status),
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        retry_of=row.retry_of,
        flow_run_id=row.flow_run_id,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        cancel_requested_at=row.cancel_requested_at,
        only_keys=None if row.only_keys is None else tuple(json.loads(row.only_keys)),
        snapshot_id=row.snapshot_id,
        files_loaded=row.files_loaded,
        files_failed=row.files_failed,
        files_skipped=row.files_skipped,
        files_known=row.files_known,
        rows_loaded=row.rows_loaded,
        stored_bytes=row.stored_bytes,
        progress=RunProgress(**json.loads(row.progress)) if row.progress else None,
        files_replaced=row.files_replaced,
        files_appended=row.files_appended,
        handed_over_at=row.handed_over_at,
        warnings=tuple(json.loads(row.warnings)),
        errors=tuple(errors),
    )
