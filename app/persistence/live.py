"""Events, logs and counts, for whoever asks for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, or_, select, true, update

from app.domain.live import (
    Event,
    EventBounds,
    EventFilter,
    EventKind,
    EventPage,
    Readings,
    RunLog,
    RunLogLine,
    RunProgress,
)
from app.domain.runs import RunStatus
from app.persistence.counters import all_counters
from app.persistence.schema import events, ingestions, installation, run_logs, runs
from app.persistence.store import SqlStore, insert_into, storable
from app.persistence.telling import forget_progress, tell

# The lines of a run's log that are kept: so many from its beginning, and so many up to its end.
FIRST_LINES = 500
LAST_LINES = 500
LINE_LENGTH = 2_000
_PRUNED = "events_pruned"
_QUEUED = RunStatus.QUEUED.value
_NOT_OVER = (_QUEUED, RunStatus.RUNNING.value)


class SqlLive(SqlStore):
    """Keeps the promises of `domain.live.Telling` and `LiveRows`."""

    # --- events ---------------------------------------------------------------------------------------------------

    def event_bounds(self) -> EventBounds:
        """Which events are kept."""
        with self._read() as connection:
            return _bounds(connection)

    def events_after(self, event_id: int, wanted: EventFilter, *, limit: int) -> EventPage:
        """The events with higher ids that fit."""
        with self._read() as connection:
            # First, and in a statement of its own: what is committed between the two is for the next page.
            newest = _bounds(connection).newest
            rows = connection.execute(
                select(events)
                .where(events.c.id > event_id, events.c.id <= newest, _fits(wanted))
                .order_by(events.c.id)
                .limit(limit)
            ).all()
        position = rows[-1].id if len(rows) == limit else max(newest, event_id)
        return EventPage(tuple(_event(row) for row in rows), position)

    def knows_events_of(self, wanted: EventFilter) -> bool:
        """Whether there is such an ingestion or run, or was one."""
        tenant = true() if wanted.tenant is None else ingestions.c.tenant == wanted.tenant
        living = select(ingestions.c.id).where(tenant)
        if wanted.ingestion_id is not None:
            living = living.where(ingestions.c.id == wanted.ingestion_id)
        if wanted.run_id is not None:
            living = living.join(runs, runs.c.ingestion_id == ingestions.c.id).where(runs.c.id == wanted.run_id)
        with self._read() as connection:
            if connection.execute(living.limit(1)).first() is not None:
                return True
            return connection.execute(select(events.c.id).where(_fits(wanted)).limit(1)).first() is not None

    def prune(self, *, events: int, events_age_s: float, logs_age_s: float) -> int:
        """Forget what is old, and what is too much."""
        now = datetime.now(UTC)
        forgotten = self._prune_events(events, now - timedelta(seconds=events_age_s))
        old = run_logs.c.at < now - timedelta(seconds=logs_age_s)
        with self._read() as connection:
            has_old = connection.execute(select(run_logs.c.run_id).where(old).limit(1)).first() is not None
        if has_old:
            with self._write() as connection:
                connection.execute(delete(run_logs).where(old))
        return forgotten

    def _prune_events(self, most: int, before: datetime) -> int:
        surplus = select(events.c.id).order_by(events.c.id.desc()).offset(most).limit(1)
        old = select(func.max(events.c.id)).where(events.c.created_at < before)
        with self._read() as connection:
            up_to = max(connection.execute(surplus).scalar() or 0, connection.execute(old).scalar() or 0)
        if not up_to:
            return 0
        with self._write() as connection:
            gone = connection.execute(delete(events).where(events.c.id <= up_to)).rowcount
            statement = self._insert(installation).values(name=_PRUNED, value=str(up_to))
            connection.execute(statement.on_conflict_do_nothing())
            noted = connection.execute(
                select(installation.c.value).where(installation.c.name == _PRUNED).with_for_update()
            ).scalar_one()
            connection.execute(
                update(installation).where(installation.c.name == _PRUNED).values(value=str(max(int(noted), up_to)))
            )
            return gone

    # --- while a run works ----------------------------------------------------------------------------------------

    def tell_progress(
        self, run_id: str, attempt: int, progress: RunProgress | None, lines: Sequence[RunLogLine]
    ) -> None:
        """Keep how far an attempt has come, and lines of its log."""
        with self._write() as connection:
            this = (runs.c.id == run_id) & (runs.c.status == RunStatus.RUNNING.value) & (runs.c.attempts == attempt)
            # Locked, so that its end is not told before this.
            row = select(runs.c.ingestion_id, runs.c.progress).where(this).with_for_update(key_share=True)
            at_work = connection.execute(row).first()
            self._keep_lines(connection, run_id, lines)
            if at_work is None:
                return
            kept = at_work.progress
            if progress is not None:
                kept = json.dumps(asdict(progress))
                connection.execute(update(runs).where(this).values(progress=kept))
            forget_progress(connection, run_id)
            body = {"id": run_id, "run_id": run_id, "ingestion_id": at_work.ingestion_id, "status": "running"}
            body |= {"attempts": attempt, "progress": json.loads(kept) if kept else None}
            body |= {"log_lines": _last_line(connection, run_id)}
            tell(connection, EventKind.RUN_PROGRESS, at_work.ingestion_id, run_id, body)

    def _keep_lines(self, connection: Connection, run_id: str, lines: Sequence[RunLogLine]) -> None:
        if not lines:
            return
        rows = [
            {
                "run_id": run_id,
                "number": line.number,
                "at": line.at,
                "level": line.level,
                "message": (storable(line.message) or "")[:LINE_LENGTH],
            }
            for line in lines
        ]
        connection.execute(self._insert(run_logs).values(rows).on_conflict_do_nothing())
        middle = (run_logs.c.number > FIRST_LINES) & (run_logs.c.number <= lines[-1].number - LAST_LINES)
        connection.execute(delete(run_logs).where(run_logs.c.run_id == run_id, middle))

    def last_line(self, run_id: str) -> int:
        """The number of the last line of a run's log."""
        with self._read() as connection:
            return _last_line(connection, run_id)

    def run_log(self, run_id: str, *, after: int, limit: int) -> RunLog:
        """Its lines with higher numbers."""
        mine = run_logs.c.run_id == run_id
        with self._read() as connection:
            kept = connection.execute(select(func.count()).select_from(run_logs).where(mine)).scalar_one()
            last = _last_line(connection, run_id)
            rows = connection.execute(
                select(run_logs).where(mine, run_logs.c.number > after).order_by(run_logs.c.number).limit(limit + 1)
            ).all()
        lines = tuple(RunLogLine(row.number, row.at, row.level, row.message) for row in rows)
        return RunLog(lines, left_out=max(last - kept, 0))

    # --- counts ---------------------------------------------------------------------------------------------------

    def readings(self, *, most: int, tenant: str | None = None) -> Readings:
        """How the service is."""
        since = func.min(func.coalesce(runs.c.next_attempt_at, runs.c.created_at))
        living = ingestions.c.deleted_at.is_(None) & ingestions.c.kind.in_(("load", "service"))
        succeeded = living & (ingestions.c.status == "active") & ingestions.c.last_success_at.is_not(None)
        if tenant is not None:
            succeeded &= ingestions.c.tenant == tenant
        with self._read() as connection:
            now = self._now(connection)
            due = and_(runs.c.status == _QUEUED, or_(runs.c.next_attempt_at.is_(None), runs.c.next_attempt_at <= now))
            states = select(runs.c.status, runs.c.method, func.count()).where(runs.c.status.in_(_NOT_OVER))
            waiting = connection.execute(select(runs.c.method, since).where(due).group_by(runs.c.method)).all()
            by_status = select(ingestions.c.status, func.count()).where(living).group_by(ingestions.c.status)
            freshness = select(ingestions.c.id, ingestions.c.last_success_at).where(succeeded)
            of_all = connection.execute(select(func.count()).select_from(ingestions).where(succeeded)).scalar_one()
            last = connection.execute(freshness.order_by(ingestions.c.last_success_at).limit(most)).all()
            return Readings(
                counters=all_counters(connection),
                not_over={
                    (status, method): number
                    for status, method, number in connection.execute(states.group_by(runs.c.status, runs.c.method))
                },
                due_since={row[0]: row[1] for row in waiting},
                ingestions={row[0]: row[1] for row in connection.execute(by_status)},
                last_success={row[0]: row[1] for row in last},
                left_out=of_all - len(last),
            )


def _last_line(connection: Connection, run_id: str) -> int:
    found = connection.execute(select(func.max(run_logs.c.number)).where(run_logs.c.run_id == run_id)).scalar()
    return found or 0


def add_line(connection: Connection, run_id: str, level: str, message: str) -> None:
    """Add a line to a run's log in a transaction that changes the run, whose row is locked."""
    number = _last_line(connection, run_id) + 1
    values = {"run_id": run_id, "number": number, "at": datetime.now(UTC), "level": level, "message": message}
    # A process that was thought dead may write its own line at this moment.
    connection.execute(insert_into(run_logs, connection.dialect.name).values(values).on_conflict_do_nothing())


def _bounds(connection: Connection) -> EventBounds:
    pruned = connection.execute(select(installation.c.value).where(installation.c.name == _PRUNED)).scalar()
    newest = connection.execute(select(func.max(events.c.id))).scalar()
    return EventBounds(int(pruned or 0), max(int(newest or 0), int(pruned or 0)))


def _fits(wanted: EventFilter) -> ColumnElement[bool]:
    chosen = {"tenant": wanted.tenant, "ingestion_id": wanted.ingestion_id, "run_id": wanted.run_id}
    return and_(true(), *(events.c[name] == value for name, value in chosen.items() if value is not None))


def _event(row: Row[Any]) -> Event:
    return Event(
        id=row.id,
        at=row.created_at,
        kind=EventKind(row.kind),
        tenant=row.tenant,
        ingestion_id=row.ingestion_id,
        run_id=row.run_id,
        body=json.loads(row.body),
    )
