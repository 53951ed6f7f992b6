"""Runs of an ingestion: their history, and what can be done about one."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api.codes import SCHEDULING_OFF
from app.api.models import FlowRunModel, Page, RunLogPage, RunModel
from app.api.paging import DEFAULT_LIMIT, Cursor, Limit, bad_cursor, cursor_of, keys_of, time_of
from app.api.problems import Refusal
from app.api.routes import IngestionId, MadeId, Route, RunId
from app.api.services import CurrentUser, FlowRunsDep, IngestionsDep
from app.api.v1.ingestions import ONCE
from app.domain.errors import NoFlowRunError

LARGEST = (1 << 63) - 1

router = APIRouter(prefix="/ingestions/{ingestion_id}/runs", tags=["runs"], route_class=Route)


@router.get("")
async def list_runs(
    ingestion_id: IngestionId,
    service: IngestionsDep,
    user: CurrentUser,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[RunModel]:
    """Its runs, the newest first."""
    found = await service.list_runs(ingestion_id, limit=limit, after=_after(cursor), current_user=user)
    last = found[limit - 1] if len(found) > limit else None
    following = cursor_of((last.created_at.isoformat(), last.id)) if last else None
    return Page(items=[RunModel.of(run) for run in found[:limit]], next=following)


def _after(cursor: str | None) -> tuple[datetime, str] | None:
    keys = keys_of(cursor, 2)
    if keys is None:
        return None
    return time_of(str(keys[0])), str(keys[1])


@router.get("/{run_id}")
async def get_run(ingestion_id: IngestionId, run_id: RunId, service: IngestionsDep, user: CurrentUser) -> RunModel:
    """One run of it."""
    return RunModel.of(await service.get_run(ingestion_id, run_id, user))


@router.get("/{run_id}/logs")
async def run_logs(
    *,
    ingestion_id: IngestionId,
    run_id: RunId,
    service: IngestionsDep,
    user: CurrentUser,
    after: Annotated[int, Query(ge=0, le=LARGEST, description="Only lines with higher numbers, to go on later.")] = 0,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> RunLogPage:
    """What a run logged, without secrets; of a long log its beginning and its end."""
    start = max(after, _number(cursor))
    log = await service.run_log(ingestion_id, run_id, after=start, limit=limit, current_user=user)
    return RunLogPage.of(log, limit)


def _number(cursor: str | None) -> int:
    keys = keys_of(cursor, 1)
    if keys is None:
        return 0
    if not isinstance(keys[0], int) or keys[0] < 0:
        raise bad_cursor()
    return keys[0]


@router.get("/{run_id}/prefect-details")
async def prefect_details(
    *,
    ingestion_id: IngestionId,
    run_id: RunId,
    service: IngestionsDep,
    flow_runs: FlowRunsDep,
    user: CurrentUser,
    limit: Annotated[int, Query(ge=1, le=200, description="Lines of its log.")] = 200,
    offset: Annotated[int, Query(ge=0, le=1_000_000, description="Lines to leave out before.")] = 0,
) -> FlowRunModel:
    """Prefect's side of a run: state, times, log and page. A direct run has none."""
    run = await service.get_run(ingestion_id, run_id, user)
    if run.flow_run_id is None:
        raise NoFlowRunError
    if flow_runs is None:
        raise Refusal(HTTPStatus.CONFLICT, SCHEDULING_OFF, "PREFECT_API_URL is not set, so that nobody can be asked.")
    details = await flow_runs.flow_run_details(run.flow_run_id, limit=limit, offset=offset)
    if details is None:
        raise NoFlowRunError("Prefect does not know the flow run any more.")
    return FlowRunModel.of(run.id, details)


@router.post("/{run_id}/retry", status_code=202, dependencies=ONCE)
async def retry_run(
    *,
    ingestion_id: IngestionId,
    run_id: RunId,
    response: Response,
    service: IngestionsDep,
    user: CurrentUser,
    made_id: MadeId,
) -> RunModel:
    """Begin a run of the files that failed in that one."""
    run = (await service.retry_run(ingestion_id, run_id, user, made_id=made_id)).run
    response.headers["Location"] = f"/api/v1/ingestions/{ingestion_id}/runs/{run.id}"
    return RunModel.of(run)


@router.post("/{run_id}/cancel", status_code=202, dependencies=ONCE)
async def cancel_run(ingestion_id: IngestionId, run_id: RunId, service: IngestionsDep, user: CurrentUser) -> RunModel:
    """End a run. What was committed stays, the rest is as if never begun."""
    return RunModel.of(await service.cancel_run(ingestion_id, run_id, user))
