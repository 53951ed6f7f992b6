"""The webhooks of ingestions: their rows follow the document, and keep each one's secret and whether it is disabled."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, delete, select, update

from app.domain.webhooks import DeliveryState, Target, Webhook, WebhookState, receiver_of
from app.persistence.keys import Keyring
from app.persistence.schema import webhook_deliveries, webhooks
from app.persistence.sealing import Place, Sealed, rewrap, seal, unseal

TABLE = "webhooks"
REMOVED = "The webhook was removed from the ingestion."
# What a row holds where there is no secret.
_UNSIGNED = {"ciphertext": None, "nonce": None, "wrapped_key": None, "key_id": None}


def place_of(ingestion_id: str, webhook: str) -> Place:
    """Where the secret of a webhook belongs."""
    return Place(f"{ingestion_id}/{webhook}", TABLE)


class WebhookRows:
    """The rows, in transactions of the caller's."""

    def __init__(self, keyring: Keyring, learn: Callable[[Iterable[str]], None]) -> None:
        self._keyring = keyring
        self._learn = learn

    def put(
        self, connection: Connection, ingestion_id: str, wanted: Sequence[Webhook], secrets: Mapping[str, str | None]
    ) -> None:
        """Make the rows equal to the webhooks that are wanted; each of them is enabled.

        Messages that are pending go where their webhook goes now, and are given up where it is gone.

        Args:
            connection: With a transaction, in which nobody else changes this ingestion.
            ingestion_id: Whose they are.
            wanted: All of them.
            secrets: Webhook → its secret from now on, None: it has none any more. One that is not named keeps its own.
        """
        keys = [one.key for one in wanted]
        this = webhooks.c.ingestion_id == ingestion_id
        known = set(connection.execute(select(webhooks.c.webhook).where(this)).scalars())
        connection.execute(delete(webhooks).where(this, webhooks.c.webhook.not_in(keys)))
        self._give_up(connection, ingestion_id, known - set(keys))
        for one in wanted:
            values = {
                "url": one.url,
                "receiver": receiver_of(one.url),
                "events": None if one.events is None else json.dumps([event.value for event in one.events]),
                "disabled_at": None,
                "disabled_reason": None,
            }
            if one.key in secrets:
                values |= self._sealed(ingestion_id, one.key, secrets[one.key])
            row = {"ingestion_id": ingestion_id, "webhook": one.key}
            if one.key in known:
                connection.execute(update(webhooks).where(this, webhooks.c.webhook == one.key).values(values))
                self._redirect(connection, ingestion_id, one)
            else:
                connection.execute(webhooks.insert().values(row | _UNSIGNED | values))

    def _sealed(self, ingestion_id: str, webhook: str, secret: str | None) -> dict[str, Any]:
        if secret is None:
            return _UNSIGNED
        self._learn([secret])
        sealed = seal(self._keyring, place_of(ingestion_id, webhook), {"secret": secret})
        return {
            "ciphertext": sealed.ciphertext,
            "nonce": sealed.nonce,
            "wrapped_key": sealed.wrapped_key,
            "key_id": sealed.key_id,
        }

    @staticmethod
    def _redirect(connection: Connection, ingestion_id: str, webhook: Webhook) -> None:
        receiver = receiver_of(webhook.url)
        connection.execute(
            update(webhook_deliveries)
            .where(_is_pending(ingestion_id, webhook.key), webhook_deliveries.c.receiver != receiver)
            .values(receiver=receiver)
        )

    @staticmethod
    def _give_up(connection: Connection, ingestion_id: str, keys: Iterable[str]) -> None:
        for key in keys:
            give_up(connection, ingestion_id, key, REMOVED)

    def target(self, connection: Connection, ingestion_id: str, webhook: str) -> Target | None:
        """Where the webhook's messages go.

        Raises:
            SecretKeyError: Its secret cannot be read.
        """
        which = (webhooks.c.ingestion_id == ingestion_id) & (webhooks.c.webhook == webhook)
        row = connection.execute(select(webhooks).where(which)).first()
        if row is None:
            return None
        secret = None
        if row.ciphertext is not None:
            sealed = Sealed(row.ciphertext, row.nonce, row.wrapped_key, row.key_id)
            secret = unseal(self._keyring, place_of(ingestion_id, webhook), sealed)["secret"]
            self._learn([secret])
        return Target(row.url, secret, row.disabled_reason if row.disabled_at else None)

    def rewrap_one(self, connection: Connection, present: str) -> bool:
        """Wrap the key of one row that is not under the present master key anew; False where there is none.

        Raises:
            SecretKeyError: It is under a key that is not at hand.
        """
        row = connection.execute(
            select(webhooks).where(webhooks.c.key_id != present).limit(1).with_for_update()
        ).first()
        if row is None:
            return False
        place = place_of(row.ingestion_id, row.webhook)
        wrapped, key_id = rewrap(self._keyring, place, row.wrapped_key, row.key_id)
        connection.execute(
            update(webhooks)
            .where(webhooks.c.ingestion_id == row.ingestion_id, webhooks.c.webhook == row.webhook)
            .values(wrapped_key=wrapped, key_id=key_id)
        )
        return True


def states(connection: Connection, ingestion_ids: Sequence[str]) -> dict[str, tuple[WebhookState, ...]]:
    """Ingestion → what is known of its webhooks."""
    if not ingestion_ids:
        return {}
    columns = (
        webhooks.c.ingestion_id,
        webhooks.c.webhook,
        webhooks.c.ciphertext.is_not(None).label("signed"),
        webhooks.c.disabled_at,
        webhooks.c.disabled_reason,
    )
    rows = connection.execute(
        select(*columns).where(webhooks.c.ingestion_id.in_(ingestion_ids)).order_by(webhooks.c.webhook)
    )
    found: dict[str, tuple[WebhookState, ...]] = {}
    for row in rows:
        state = WebhookState(row.webhook, bool(row.signed), row.disabled_at, row.disabled_reason)
        found[row.ingestion_id] = (*found.get(row.ingestion_id, ()), state)
    return found


def give_up(connection: Connection, ingestion_id: str, webhook: str, reason: str) -> None:
    """Let every pending message of a webhook be dead."""
    connection.execute(
        update(webhook_deliveries)
        .where(_is_pending(ingestion_id, webhook))
        .values(state=DeliveryState.DEAD.value, next_attempt_at=None, error=reason)
    )


def disable(connection: Connection, ingestion_id: str, webhook: str, reason: str, now: datetime) -> bool:
    """Send nothing more to a webhook; False where it is gone."""
    changed = connection.execute(
        update(webhooks)
        .where(webhooks.c.ingestion_id == ingestion_id, webhooks.c.webhook == webhook)
        .values(disabled_at=now, disabled_reason=reason)
    )
    give_up(connection, ingestion_id, webhook, reason)
    return changed.rowcount == 1


def forget(connection: Connection, ingestion_id: str) -> None:
    """Remove the webhooks of an ingestion with their secrets, and what was on its way to them."""
    for table in (webhook_deliveries, webhooks):
        connection.execute(delete(table).where(table.c.ingestion_id == ingestion_id))


def _is_pending(ingestion_id: str, webhook: str) -> Any:  # noqa: ANN401 - a condition
    return and_(
        webhook_deliveries.c.ingestion_id == ingestion_id,
        webhook_deliveries.c.webhook == webhook,
        webhook_deliveries.c.state == DeliveryState.PENDING.value,
    )
