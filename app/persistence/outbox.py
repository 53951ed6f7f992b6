"""The outbox of webhooks: what is due, what became of it, and what is shown of it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from app.domain.errors import NotFoundError, WebhookOffError
from app.domain.webhooks import Delivery, DeliveryState, Target, Verdict
from app.persistence.ingestions import SqlIngestions
from app.persistence.schema import ingestions, webhook_deliveries, webhooks
from app.persistence.store import storable
from app.persistence.webhooks import disable

_D = webhook_deliveries.c
_PENDING = DeliveryState.PENDING.value


class SqlOutbox(SqlIngestions):
    """Keeps the promises of `domain.webhooks.Outbox`."""

    def due_deliveries(
        self, *, flying: Collection[int], full: Collection[str], each: int, limit: int
    ) -> list[Delivery]:
        """Messages that may be sent now, of each lane the oldest."""
        heads = (
            select(func.min(_D.position))
            .where(_D.state == _PENDING)
            .group_by(_D.ingestion_id, _D.webhook, _D.lane)
            .scalar_subquery()
        )
        # Of one receiver a few at a time, whoever names it: those of others are not behind it.
        turn = func.row_number().over(partition_by=_D.receiver, order_by=(_D.next_attempt_at, _D.position))
        with self._read() as connection:
            now = self._now_at(connection)
            due = (
                select(_D.position, turn.label("turn"))
                .where(_D.position.in_(heads), _D.next_attempt_at <= now)
                .where(_D.position.not_in(flying), _D.receiver.not_in(full))
                .subquery()
            )
            statement = (
                select(webhook_deliveries)
                .join(due, due.c.position == _D.position)
                .where(due.c.turn <= each)
                .order_by(due.c.turn, _D.next_attempt_at, _D.position)
                .limit(limit)
            )
            return [_delivery(row, now) for row in connection.execute(statement)]

    def webhook_target(self, ingestion_id: str, webhook: str) -> Target | None:
        """Where its messages go."""
        with self._read() as connection:
            return self._webhooks.target(connection, ingestion_id, webhook)

    def note_attempt(self, delivery: Delivery, verdict: Verdict) -> Delivery | None:
        """Keep what came of sending it."""
        this = ingestions.c.id == delivery.ingestion_id
        with self._write() as connection:
            if verdict.disable is not None:
                # Before all else, as whoever changes the ingestion does: neither then waits for the other for ever.
                connection.execute(select(ingestions.c.id).where(this).with_for_update())
            now = self._now_at(connection)
            is_delivered = verdict.state is DeliveryState.DELIVERED
            is_pending = verdict.state is DeliveryState.PENDING
            changed = connection.execute(
                update(webhook_deliveries)
                .where(_D.position == delivery.position, _D.state == _PENDING, _D.attempts == delivery.attempts)
                .values(
                    state=verdict.state.value,
                    attempts=delivery.attempts + 1,
                    last_attempt_at=now,
                    next_attempt_at=now + timedelta(seconds=verdict.wait_s) if is_pending else None,
                    delivered_at=now if is_delivered else None,
                    last_status=verdict.status,
                    error=storable(verdict.error),
                )
            )
            if changed.rowcount != 1:
                return None
            if verdict.disable is not None and disable(
                connection, delivery.ingestion_id, delivery.webhook, verdict.disable, now
            ):
                # What the API shows of the ingestion is another thing now.
                connection.execute(update(ingestions).where(this).values(version=ingestions.c.version + 1))
            row = connection.execute(select(webhook_deliveries).where(_D.position == delivery.position)).one()
            return _delivery(row, now)

    def list_deliveries(
        self, ingestion_id: str, *, state: DeliveryState | None, limit: int, before: int | None
    ) -> list[Delivery]:
        """A page of an ingestion's messages, newest first."""
        statement = select(webhook_deliveries).where(_D.ingestion_id == ingestion_id)
        if state is not None:
            statement = statement.where(_D.state == state.value)
        if before is not None:
            statement = statement.where(_D.position < before)
        with self._read() as connection:
            now = self._now_at(connection)
            rows = connection.execute(statement.order_by(_D.position.desc()).limit(limit + 1))
            return [_delivery(row, now) for row in rows]

    def redeliver(self, ingestion_id: str, delivery_id: str) -> Delivery:
        """Have a message sent once more."""
        which = (_D.id == delivery_id) & (_D.ingestion_id == ingestion_id)
        with self._write() as connection:
            row = connection.execute(select(webhook_deliveries).where(which).with_for_update()).first()
            if row is None:
                raise NotFoundError(f"The ingestion has no webhook delivery {delivery_id}.")
            _refuse_off(connection, row)
            now = self._now_at(connection)
            values: dict[str, Any] = {"next_attempt_at": now, "queued_at": now}
            if row.state != _PENDING:
                # In a lane of its own: what is new does not wait for what is old.
                values |= {"state": _PENDING, "lane": row.position, "attempts": 0, "delivered_at": None, "error": None}
            connection.execute(update(webhook_deliveries).where(which).values(values))
            return _delivery(connection.execute(select(webhook_deliveries).where(which)).one(), now)

    def prune_deliveries(self, *, older_s: float) -> int:
        """Forget messages that are over."""
        with self._write() as connection:
            before = self._now_at(connection) - timedelta(seconds=older_s)
            gone = connection.execute(delete(webhook_deliveries).where(_D.state != _PENDING, _D.created_at < before))
            return gone.rowcount

    def _now_at(self, connection: Connection) -> datetime:
        return datetime.fromtimestamp(connection.execute(select(self._now_s())).scalar_one(), UTC)


def _refuse_off(connection: Connection, row: Row[Any]) -> None:
    webhook = connection.execute(
        select(webhooks.c.disabled_at, webhooks.c.disabled_reason).where(
            webhooks.c.ingestion_id == row.ingestion_id, webhooks.c.webhook == row.webhook
        )
    ).first()
    if webhook is None:
        raise WebhookOffError("The ingestion has no such webhook any more.", remedy="Send it with the ingestion again.")
    if webhook.disabled_at is not None:
        raise WebhookOffError(f"The webhook is disabled: {webhook.disabled_reason}")


def _delivery(row: Row[Any], now: datetime) -> Delivery:
    """A row as a noun."""
    return Delivery(
        position=row.position,
        id=row.id,
        ingestion_id=row.ingestion_id,
        webhook=row.webhook,
        event=row.event,
        run_id=row.run_id,
        receiver=row.receiver,
        body=row.body,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        created_at=row.created_at,
        waited_s=max(0.0, (now - row.queued_at).total_seconds()),
        next_attempt_at=row.next_attempt_at,
        last_attempt_at=row.last_attempt_at,
        delivered_at=row.delivered_at,
        last_status=row.last_status,
        error=row.error,
    )
