"""How the service is. Nothing is asked meanwhile: the answer is the last beat's."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Response

from app.api.codes import NOT_READY
from app.api.models import Alive, HealthModel
from app.api.problems import Refusal
from app.api.routes import Route
from app.api.services import HealthDep

router = APIRouter(prefix="/health", tags=["health"], route_class=Route)
UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE


@router.get("", responses={UNAVAILABLE: {"model": HealthModel}}, response_model_exclude_none=True)
async def health(response: Response, board: HealthDep) -> HealthModel:
    """Whether database and scheduler answer. Without its database the service is unhealthy, without Prefect not."""
    now = board.read()
    response.status_code = 200 if now.is_healthy else UNAVAILABLE
    return HealthModel(
        status="healthy" if now.is_healthy else "unhealthy",
        database="connected" if now.database.up else "disconnected",
        prefect="connected" if now.prefect.up else "disconnected",
        database_detail=now.database.detail or None,
        prefect_detail=now.prefect.detail or None,
    )


@router.get("/live")
async def live() -> Alive:
    """The process answers."""
    return Alive(status="alive")


@router.get("/ready")
async def ready(board: HealthDep) -> Alive:
    """It can do its work."""
    if not board.read().is_healthy:
        raise Refusal(UNAVAILABLE, NOT_READY, "The database does not answer.")
    return Alive(status="ready")
