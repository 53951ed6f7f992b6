"""Writes what webhooks are told of a run into the outbox, inside the transaction that ends the run."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from app.domain.runs import RunStatus
from app.domain.webhook_messages import message, run_link, told_errors, utc_text
from app.domain.webhooks import DeliveryState, Webhook, WebhookEvent, events_of
from app.persistence.schema import ingestions, runs, tables, webhook_deliveries, webhooks


def tell_webhooks(connection: Connection, run_id: str, now: datetime) -> None:
    """Write a message for each webhook that wants to hear how the run has ended; none for a run that is not over.

    Called by whoever ends a run, after its row was changed and before the transaction ends: so there is a message
    exactly where a run has ended. Runs of one ingestion never overlap, so that positions rise with their ends.
    """
    run = connection.execute(
        select(runs, tables.c.name.label("table_name"), ingestions.c.name.label("ingestion_name"))
        .join(tables, tables.c.id == runs.c.table_id)
        .join(ingestions, ingestions.c.id == runs.c.ingestion_id)
        .where(runs.c.id == run_id)
    ).first()
    if run is None:
        return
    receivers = _receivers(connection, run.ingestion_id)
    if not receivers:
        return
    status = RunStatus(run.status)
    recovers = status is RunStatus.SUCCESS and _failed_before(connection, run)
    for event in events_of(status, recovers=recovers):
        body = message(event.value, run.ended_at or now, _data(run))
        rows = [_delivery(run, row, event, body, now) for row, webhook in receivers if webhook.wants(event)]
        if rows:
            connection.execute(insert(webhook_deliveries), rows)


def _receivers(connection: Connection, ingestion_id: str) -> list[tuple[Row[Any], Webhook]]:
    found = connection.execute(
        select(webhooks)
        .where(webhooks.c.ingestion_id == ingestion_id, webhooks.c.disabled_at.is_(None))
        .order_by(webhooks.c.webhook)
    )
    return [(row, Webhook(row.url, events=_events(row.events))) for row in found]


def _events(text: str | None) -> tuple[WebhookEvent, ...] | None:
    return None if text is None else tuple(map(WebhookEvent, json.loads(text)))


def _failed_before(connection: Connection, run: Row[Any]) -> bool:
    """Whether the run before it, of those that succeeded or failed, failed."""
    decided = (RunStatus.SUCCESS.value, RunStatus.FAILED.value)
    before = (
        select(runs.c.status)
        .where(runs.c.ingestion_id == run.ingestion_id, runs.c.id != run.id, runs.c.status.in_(decided))
        .order_by(runs.c.created_at.desc(), runs.c.id.desc())
        .limit(1)
    )
    return connection.execute(before).scalar() == RunStatus.FAILED.value


def _delivery(run: Row[Any], webhook: Row[Any], event: WebhookEvent, body: str, now: datetime) -> dict[str, Any]:
    return {
        "id": uuid.uuid4().hex,
        "ingestion_id": run.ingestion_id,
        "webhook": webhook.webhook,
        "lane": 0,
        "receiver": webhook.receiver,
        "event": event.value,
        "run_id": run.id,
        "body": body,
        "state": DeliveryState.PENDING.value,
        "attempts": 0,
        "created_at": now,
        "queued_at": now,
        "next_attempt_at": now,
    }


def _errors(run: Row[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run.errors) if run.errors else []
    if not found and run.error:
        # A run whose process died, and that another one took over, keeps what stopped it as a sentence.
        return [{"category": "failed", "message": run.error}]
    return found


def _data(run: Row[Any]) -> dict[str, Any]:
    """What a message says of a run: what the API's resource of it says first, and where to find the rest."""
    began, ended = run.started_at, run.ended_at
    return {
        "ingestion": {"id": run.ingestion_id, "name": run.ingestion_name},
        "run": {
            "id": run.id,
            "status": run.status,
            "trigger": run.trigger,
            "method": run.method,
            "table": run.table_name,
            "snapshot_id": run.snapshot_id,
            "files": {
                "loaded": run.files_loaded,
                "failed": run.files_failed,
                "skipped": run.files_skipped,
                "known": run.files_known,
            },
            "rows": {"loaded": run.rows_loaded},
            "bytes": run.stored_bytes,
            "duration_s": round((ended - began).total_seconds(), 3) if began and ended else None,
            "errors": told_errors(_errors(run)),
            "created_at": utc_text(run.created_at),
            "started_at": utc_text(began),
            "ended_at": utc_text(ended),
            "attempts": run.attempts,
            "retry_of": run.retry_of,
        },
        "link": run_link(run.ingestion_id, run.id),
    }
