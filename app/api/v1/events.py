"""What happens, as it happens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request

from app.api.event_stream import EventStream
from app.api.problems import refused
from app.api.routes import Route
from app.api.services import CurrentUser, EventsDep
from app.domain.live import EventFilter

router = APIRouter(tags=["events"], route_class=Route)
LARGEST_ID = (1 << 63) - 1
Wanted = Annotated[str | None, Query(max_length=64)]


@router.get("/events", status_code=200, response_class=EventStream)
async def stream_events(
    *,
    request: Request,
    events: EventsDep,
    user: CurrentUser,
    ingestion_id: Annotated[str | None, Query(max_length=64, description="Only events of this ingestion.")] = None,
    run_id: Annotated[str | None, Query(max_length=64, description="Only events of this run.")] = None,
    after: Annotated[
        int | None, Query(ge=0, le=LARGEST_ID, description="Begin after this event; without it, after all there are.")
    ] = None,
    limit: Annotated[int | None, Query(ge=1, le=100_000, description="End after so many events.")] = None,
    timeout_s: Annotated[
        float | None, Query(ge=0, le=3600, description="End after so long; 0: when what there is was sent.")
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            max_length=20,
            pattern="^[0-9]*$",
            description="As `after`, and before it: browsers send it by themselves.",
        ),
    ] = None,
) -> EventStream:
    """Server-sent events of ingestions and runs, until the client goes away or an hour has passed.

    An event is told once its change is committed, whichever process made it. A client that comes back with the id of
    the last event that it saw misses none; where events after it are gone by then, it is told `reset` first.
    """
    begin = int(last_event_id) if last_event_id else after
    if begin is not None and begin > LARGEST_ID:
        raise refused("header.Last-Event-ID", "There is no such id.")
    reader = await events.read(EventFilter(user.tenant, ingestion_id, run_id), begin)
    return EventStream(reader, request.scope["still_may"], limit=limit, timeout_s=timeout_s)
