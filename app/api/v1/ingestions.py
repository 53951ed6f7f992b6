"""Ingestions: make, read, change, delete, run, pause and resume them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response

from app.api.bodies import json_object
from app.api.etags import IfMatch, etag
from app.api.models import IngestionModel, Page, StatusModel, Triggered
from app.api.paging import DEFAULT_LIMIT, Cursor, Limit, bad_cursor, cursor_of, keys_of, time_of
from app.api.routes import IngestionId, MadeId, Route, idempotency_key
from app.api.services import Changed, CurrentUser, IngestionsDep
from app.domain.ingestions import Ingestion, IngestionStatus
from app.domain.locations import SourceType
from app.domain.service import IngestionQuery, Sort

router = APIRouter(prefix="/ingestions", tags=["ingestions"], route_class=Route)
Document = Annotated[dict[str, Any], Depends(json_object)]
ONCE = [Depends(idempotency_key)]
# As RFC 7240 names the wish.
NO_WAIT = "respond-async"


@router.post("", status_code=201, dependencies=ONCE)
async def create_ingestion(
    document: Document, response: Response, service: IngestionsDep, user: CurrentUser, made_id: MadeId
) -> IngestionModel:
    """Make an ingestion. With a schedule it gets its deployment in Prefect, now or as soon as Prefect is there."""
    made = _shown(await service.create_ingestion(document, user, made_id=made_id), response)
    response.headers["Location"] = f"/api/v1/ingestions/{made.id}"
    return made


@router.get("")
async def list_ingestions(
    *,
    service: IngestionsDep,
    user: CurrentUser,
    status: Annotated[IngestionStatus | None, Query(description="Only those that are so.")] = None,
    source_type: Annotated[SourceType | None, Query(description="Only those of such a source.")] = None,
    q: Annotated[str | None, Query(max_length=200, description="A part of the name, in any case.")] = None,
    sort: Annotated[Sort, Query(description="By what they are sorted.")] = Sort.CREATED_AT,
    order: Annotated[str, Query(pattern="^(asc|desc)$", description="`asc` or `desc`.")] = "desc",
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[IngestionModel]:
    """Ingestions, the newest first unless asked otherwise. Those that `autoloader load` made are among them."""
    query = IngestionQuery(
        tenant=user.tenant,
        status=status,
        source_type=None if source_type is None else source_type.value,
        q=q,
        sort=sort,
        descending=order == "desc",
        limit=limit,
        after=_after(cursor, sort),
    )
    found = await service.list_ingestions(query, user)
    last = found[limit - 1] if len(found) > limit else None
    following = cursor_of((sort.value, _sort_value(last, sort), last.id)) if last else None
    return Page(items=[IngestionModel.of(one) for one in found[:limit]], next=following)


@router.get("/{ingestion_id}")
async def get_ingestion(
    ingestion_id: IngestionId, response: Response, service: IngestionsDep, user: CurrentUser
) -> IngestionModel:
    """One ingestion."""
    ingestion = await service.get_ingestion(ingestion_id, user)
    response.headers["ETag"] = etag(ingestion.version)
    return IngestionModel.of(ingestion)


@router.put("/{ingestion_id}")
async def update_ingestion(
    *,
    ingestion_id: IngestionId,
    changes: Document,
    response: Response,
    service: IngestionsDep,
    user: CurrentUser,
    if_match: IfMatch,
) -> IngestionModel:
    """Change the fields that are sent: null removes one, what is absent stays as it is, credentials too."""
    changed = await service.update_ingestion(ingestion_id, changes, if_match, user)
    return _shown(changed, response)


@router.delete("/{ingestion_id}", status_code=204)
async def delete_ingestion(
    *,
    ingestion_id: IngestionId,
    service: IngestionsDep,
    user: CurrentUser,
    if_match: IfMatch,
    delete_table: Annotated[bool, Query(description="Drop its table too.")] = False,
) -> None:
    """Delete it, its deployment and its credentials; its table stays unless asked otherwise."""
    await service.delete_ingestion(
        ingestion_id, delete_table=delete_table, expected_versions=if_match, current_user=user
    )


@router.post("/{ingestion_id}/pause", dependencies=ONCE, response_model_exclude_none=True)
async def pause_ingestion(
    ingestion_id: IngestionId, response: Response, service: IngestionsDep, user: CurrentUser, if_match: IfMatch
) -> StatusModel:
    """Let its schedule rest. A run at work goes on; none is begun."""
    return _status(await service.pause_ingestion(ingestion_id, user, expected_versions=if_match), response)


@router.post("/{ingestion_id}/resume", dependencies=ONCE, response_model_exclude_none=True)
async def resume_ingestion(
    ingestion_id: IngestionId, response: Response, service: IngestionsDep, user: CurrentUser, if_match: IfMatch
) -> StatusModel:
    """Let its schedule go on."""
    return _status(await service.resume_ingestion(ingestion_id, user, expected_versions=if_match), response)


@router.post(
    "/{ingestion_id}/run",
    status_code=202,
    responses={200: {"model": Triggered}},
    dependencies=ONCE,
    response_model_exclude_unset=True,
)
async def run_ingestion(
    *,
    ingestion_id: IngestionId,
    response: Response,
    service: IngestionsDep,
    user: CurrentUser,
    made_id: MadeId,
    prefer: Annotated[
        str, Header(max_length=1_000, description="`respond-async`: the end of a direct run is not waited for.")
    ] = "",
) -> Triggered:
    """Run it now: by Prefect where it has a deployment and Prefect answers, else directly, waiting for its end."""
    waits = NO_WAIT not in {preference.strip().lower() for preference in prefer.split(",")}
    begun = await service.trigger_manual_run(ingestion_id, user, waits=waits, made_id=made_id)
    triggered = Triggered.of(begun.run)
    if not waits:
        response.headers["Preference-Applied"] = NO_WAIT
    response.status_code = 202 if triggered.status in {"triggered", "running"} else 200
    response.headers["Location"] = f"/api/v1/ingestions/{ingestion_id}/runs/{triggered.run_id}"
    return triggered


def _shown(changed: Changed, response: Response) -> IngestionModel:
    response.headers["ETag"] = etag(changed.ingestion.version)
    return IngestionModel.of(changed.ingestion, changed.warnings)


def _status(changed: Changed, response: Response) -> StatusModel:
    response.headers["ETag"] = etag(changed.ingestion.version)
    return StatusModel.of(changed.ingestion, changed.warnings)


def _after(cursor: str | None, sort: Sort) -> tuple[str, str] | None:
    keys = keys_of(cursor, 3)
    if keys is None:
        return None
    of_sort, value, last_id = map(str, keys)
    if of_sort != sort.value:
        raise bad_cursor()
    return value if sort is Sort.NAME else time_of(value).isoformat(), last_id


def _sort_value(ingestion: Ingestion, sort: Sort) -> str:
    if sort is Sort.NAME:
        return ingestion.name
    return (ingestion.created_at if sort is Sort.CREATED_AT else ingestion.updated_at).isoformat()
