"""Deployments in Prefect for ingestions that were made without it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from app.api.bodies import parsed
from app.api.models import MigrationModel, MigrationWish
from app.api.routes import Route
from app.api.services import CurrentUser, MigrationsDep
from app.api.v1.ingestions import ONCE
from app.domain.errors import SchedulingOffError

router = APIRouter(prefix="/migrations", tags=["migrations"], route_class=Route)


@router.post("/prefect", dependencies=ONCE)
async def migrate_to_prefect(
    wish: Annotated[MigrationWish, Depends(parsed(MigrationWish, optional=True))],
    migrations: MigrationsDep,
    user: CurrentUser,
) -> MigrationModel:
    """Make what is missing, a bounded time long; ask again for what is left. The service does it by itself too."""
    if migrations is None:
        raise SchedulingOffError
    return MigrationModel.of(await migrations.migrate(user, dry_run=wish.dry_run))
