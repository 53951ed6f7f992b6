"""Webhooks of an ingestion: what was sent to them, and whether they are heard."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from app.api.bodies import parsed
from app.api.models import DeliveryModel, Page, WebhookTestModel, WebhookToTest
from app.api.paging import DEFAULT_LIMIT, Cursor, Limit, bad_cursor, cursor_of, keys_of
from app.api.routes import DeliveryId, IngestionId, Route
from app.api.services import CurrentUser, WebhooksDep
from app.api.v1.ingestions import ONCE
from app.domain.webhooks import DeliveryState

router = APIRouter(prefix="/ingestions/{ingestion_id}", tags=["webhooks"], route_class=Route)


@router.get("/webhook-deliveries")
async def list_webhook_deliveries(
    *,
    ingestion_id: IngestionId,
    service: WebhooksDep,
    user: CurrentUser,
    state: Annotated[DeliveryState | None, Query(description="Only those that are so.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[DeliveryModel]:
    """What its webhooks were sent, or are to be, the newest first: kept for 30 days."""
    found = await service.list_deliveries(
        ingestion_id, state=state, limit=limit, before=_before(cursor), current_user=user
    )
    following = cursor_of((found[limit - 1].position,)) if len(found) > limit else None
    return Page(items=[DeliveryModel.of(one) for one in found[:limit]], next=following)


@router.post("/webhooks/test", dependencies=ONCE)
async def test_webhook(
    ingestion_id: IngestionId,
    chosen: Annotated[WebhookToTest, Depends(parsed(WebhookToTest, optional=True))],
    service: WebhooksDep,
    user: CurrentUser,
) -> WebhookTestModel:
    """Call a webhook with a message of the type `webhook.test`, and say what its receiver answered."""
    return WebhookTestModel.of(await service.test(ingestion_id, chosen.webhook, user))


@router.post("/webhook-deliveries/{delivery_id}/redeliver", status_code=202, dependencies=ONCE)
async def redeliver_webhook(
    ingestion_id: IngestionId, delivery_id: DeliveryId, service: WebhooksDep, user: CurrentUser
) -> DeliveryModel:
    """Send a message once more, whatever became of it, under the same id. Nothing newer waits for it."""
    return DeliveryModel.of(await service.redeliver(ingestion_id, delivery_id, user))


def _before(cursor: str | None) -> int | None:
    keys = keys_of(cursor, 1)
    if keys is None:
        return None
    if not isinstance(keys[0], int):
        raise bad_cursor()
    return keys[0]
