"""Events: written in the transaction that changes what they tell of, and kept in the order of its commit.

Whoever reads goes on from the last id that he saw, so an id must never become visible after a higher one. SQLite has
one writer at a time. PostgreSQL gives ids out before it commits; there a lock is taken before the id and held until
the transaction is seen, so that ids are given out in the order of commits. It is taken last of all: an event is the
last statement of its transaction. Then nobody who has that lock waits for another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, literal, select

from app.domain.access import DEFAULT_TENANT
from app.domain.ingestions import Ingestion
from app.domain.live import EventKind
from app.persistence.schema import events, ingestions, runs, tables
from app.persistence.store import storable

# Of the lock that orders events; nobody else in this database may use it.
ORDER_LOCK = 0x6175746F6C6F6164
MESSAGE_LENGTH = 1_000


def tell_run(connection: Connection, run_id: str, kind: EventKind | None = None) -> None:
    """Tell how a run stands now, as the last thing that a transaction does.

    Args:
        connection: With the transaction that changed the run.
        run_id: Which run.
        kind: What happened; None: it came to have its status.
    """
    row = connection.execute(
        select(runs, tables.c.name.label("table_name"))
        .join(tables, tables.c.id == runs.c.table_id)
        .where(runs.c.id == run_id)
    ).one()
    # What was told of its progress says nothing that is not in this.
    forget_progress(connection, run_id)
    tell(connection, kind or EventKind(f"run.{row.status}"), row.ingestion_id, run_id, run_body(row))


def forget_progress(connection: Connection, run_id: str) -> None:
    """Take away what was told of a run's progress: the next news of it hold all of that."""
    this = (events.c.kind == EventKind.RUN_PROGRESS.value) & (events.c.run_id == run_id)
    connection.execute(delete(events).where(this))


def tell_ingestion(connection: Connection, ingestion: Ingestion, *kinds: EventKind) -> None:
    """Tell what happened to an ingestion, as the last thing that a transaction does."""
    for kind in kinds:
        tell(connection, kind, ingestion.id, None, ingestion_body(ingestion))


def tell(
    connection: Connection, kind: EventKind, ingestion_id: str, run_id: str | None, body: Mapping[str, Any]
) -> None:
    """Write an event, as the last thing that a transaction does."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(ORDER_LOCK)))
    tenant = select(ingestions.c.tenant).where(ingestions.c.id == ingestion_id).scalar_subquery()
    values = {
        "created_at": datetime.now(UTC),
        "tenant": func.coalesce(tenant, literal(DEFAULT_TENANT)),
        "ingestion_id": ingestion_id,
        "run_id": run_id,
        "kind": kind.value,
        "body": storable(json.dumps(body)),
    }
    connection.execute(insert(events).values(values))


def run_body(row: Row[Any]) -> dict[str, Any]:
    """What an event says of a run: its resource, without the lists of warnings and failed files."""
    return {
        "id": row.id,
        "run_id": row.id,
        "ingestion_id": row.ingestion_id,
        "status": row.status,
        "trigger": row.trigger,
        "method": row.method,
        "table": row.table_name,
        "snapshot_id": row.snapshot_id,
        "files": {
            "loaded": row.files_loaded,
            "failed": row.files_failed,
            "skipped": row.files_skipped,
            "known": row.files_known,
        },
        "rows": {"loaded": row.rows_loaded},
        "bytes": row.stored_bytes,
        "attempts": row.attempts,
        "retry_of": row.retry_of,
        "flow_run_id": row.flow_run_id,
        "created_at": _time(row.created_at),
        "started_at": _time(row.started_at),
        "ended_at": _time(row.ended_at),
        "next_attempt_at": _time(row.next_attempt_at),
        "cancel_requested_at": _time(row.cancel_requested_at),
        "error": _stop(row),
    }


def _stop(row: Row[Any]) -> dict[str, Any] | None:
    """What stopped the run, or its last attempt."""
    for error in json.loads(row.errors) if row.errors else []:
        if error["file"] is None:
            return {"category": error["category"], "message": str(error["message"])[:MESSAGE_LENGTH]}
    return {"category": "failed", "message": row.error[:MESSAGE_LENGTH]} if row.error else None


def ingestion_body(ingestion: Ingestion) -> dict[str, Any]:
    """What an event says of an ingestion: enough for a list of them."""
    return {
        "id": ingestion.id,
        "ingestion_id": ingestion.id,
        "name": ingestion.name,
        "status": ingestion.status.value,
        "table": ingestion.table,
        "version": ingestion.version,
        "prefect_deployment_id": ingestion.deployment.id if ingestion.deployment else None,
        "updated_at": _time(ingestion.updated_at),
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
