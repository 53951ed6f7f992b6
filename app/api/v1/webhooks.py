"""Calls that come from Prefect."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header

from app.api.bodies import json_object
from app.api.codes import SCHEDULING_OFF, WRONG_TOKEN
from app.api.models import Accepted
from app.api.problems import Refusal
from app.api.routes import Route
from app.api.services import HintsDep


class HintRoute(Route):
    """Doing it again does no harm, and nothing is kept of a request before it is known whose it is."""

    is_repeatable = False


router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=HintRoute)
_BEARER = re.compile(r"bearer +(\S{1,200})", re.IGNORECASE)
_FLOW_RUN = re.compile(r"(?:prefect\.flow-run\.)?([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})")


async def _authenticated(hints: HintsDep, authorization: Annotated[str, Header(include_in_schema=False)] = "") -> None:
    """Let nobody through but Prefect, and read no body before."""
    if hints is None:
        raise Refusal(HTTPStatus.CONFLICT, SCHEDULING_OFF, "PREFECT_API_URL is not set, so that scheduling is off.")
    found = _BEARER.fullmatch(authorization)
    if found is None or not await hints.accepts(found[1]):
        detail = "This is not the token that Prefect was given for this address."
        raise Refusal(HTTPStatus.UNAUTHORIZED, WRONG_TOKEN, detail)


@router.post("/prefect", status_code=202, dependencies=[Depends(_authenticated)])
async def prefect_webhook(body: Annotated[dict[str, Any], Depends(json_object)], hints: HintsDep) -> Accepted:
    """Prefect says that a flow run has changed. That is a hint: Prefect itself is asked what is true of it."""
    found = _FLOW_RUN.fullmatch(str(body.get("flow_run_id", "")))
    if hints is not None:
        hints.tell(found[1].lower() if found else None)
    return Accepted(status="accepted")
