"""Ingestions as the service keeps them, for tests of what is done with them."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from app.domain.ingestions import Ingestion, IngestionStatus, Schedule

SOME_TIME = datetime(2026, 1, 15, 12, tzinfo=UTC)


def an_ingestion(**changes: Any) -> Ingestion:
    """An active, hourly one of a new id; `changes` are fields of it."""
    ingestion_id = str(uuid.uuid4())
    plain = Ingestion(
        id=ingestion_id,
        tenant="default",
        name=f"Events {ingestion_id}",
        status=IngestionStatus.ACTIVE,
        table="local.shop.events",
        document={"source": {"type": "s3", "path": "s3://bucket/events/"}},
        schedule=Schedule("hourly"),
        credential_names=(),
        version=1,
        created_at=SOME_TIME,
        updated_at=SOME_TIME,
    )
    return replace(plain, **changes)
