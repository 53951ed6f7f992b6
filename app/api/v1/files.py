"""The files of an ingestion's table, as its ledger knows them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.api.bodies import parsed
from app.api.models import Cleared, Confirmation, FailedFileModel, FileModel, FilesToRetry, Page, RunModel
from app.api.paging import DEFAULT_LIMIT, Cursor, Limit, bad_cursor, cursor_of, keys_of
from app.api.routes import IngestionId, MadeId, Route
from app.api.services import CurrentUser, IngestionsDep
from app.api.v1.ingestions import ONCE
from app.domain.files import LedgerFile

router = APIRouter(prefix="/ingestions/{ingestion_id}", tags=["files"], route_class=Route)


@router.get("/files")
async def list_files(
    ingestion_id: IngestionId,
    service: IngestionsDep,
    user: CurrentUser,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[FileModel]:
    """The files that its table's ledger knows, by path."""
    found = await service.list_files(
        ingestion_id, failed=False, limit=limit + 1, after=_after(cursor), current_user=user
    )
    page, following = _page(found, limit)
    return Page(items=[FileModel.of(file) for file in page], next=following)


@router.get("/files/failed")
async def list_failed_files(
    ingestion_id: IngestionId,
    service: IngestionsDep,
    user: CurrentUser,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[FailedFileModel]:
    """Those that failed, and why."""
    found = await service.list_files(
        ingestion_id, failed=True, limit=limit + 1, after=_after(cursor), current_user=user
    )
    page, following = _page(found, limit)
    return Page(items=[FailedFileModel.of(file) for file in page], next=following)


@router.post("/files/retry", status_code=202, dependencies=ONCE)
async def retry_files(
    *,
    ingestion_id: IngestionId,
    chosen: Annotated[FilesToRetry, Depends(parsed(FilesToRetry, optional=True))],
    response: Response,
    service: IngestionsDep,
    user: CurrentUser,
    made_id: MadeId,
) -> RunModel:
    """Begin a run of the files that failed, all or those that are named, whatever their category."""
    run = (await service.retry_files(ingestion_id, chosen.paths, user, made_id=made_id)).run
    response.headers["Location"] = f"/api/v1/ingestions/{ingestion_id}/runs/{run.id}"
    return RunModel.of(run)


@router.delete("/processed-files")
async def clear_processed_files(
    ingestion_id: IngestionId,
    confirmation: Annotated[Confirmation, Depends(parsed(Confirmation))],
    service: IngestionsDep,
    user: CurrentUser,
) -> Cleared:
    """Forget what was loaded: a new generation of the table's ledger begins; the next run loads every file again."""
    count = await service.clear_processed_files(ingestion_id, confirm=confirmation.confirm, current_user=user)
    message = f"Forgot {count:,} files. A new generation has begun: the next run loads every file of the source again."
    return Cleared(message=message, files_cleared=count, ingestion_id=ingestion_id)


def _after(cursor: str | None) -> str | None:
    keys = keys_of(cursor, 1)
    if keys is None:
        return None
    if not isinstance(keys[0], str):
        raise bad_cursor()
    return keys[0]


def _page(found: list[LedgerFile], limit: int) -> tuple[list[LedgerFile], str | None]:
    """What of `found`, asked for with one more than `limit`, is a page, and the cursor of the next one.

    The versions of a file stay on one page, which may be longer for that: a cursor is a path.
    """
    if len(found) <= limit:
        return found, None
    last = found[limit - 1].key
    return [*found[:limit], *(file for file in found[limit:] if file.key == last)], cursor_of((last,))
