"""Looks into a source before there is an ingestion of it. Nothing is written."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.models import ColumnModel, ComputeCost, CostModel, DiscoveryCost, MonthlyCost, PreviewModel
from app.api.routes import Route
from app.api.services import CurrentUser, PreviewsDep
from app.api.v1.ingestions import ONCE, Document

router = APIRouter(prefix="/ingestions", tags=["previews"], route_class=Route)


@router.post("/test", dependencies=ONCE)
async def preview_ingestion(document: Document, service: PreviewsDep, user: CurrentUser) -> PreviewModel:
    """What the files look like as a table: columns with values, rows, counts, and what to mind."""
    seen = await service.preview(document, user)
    return PreviewModel(
        source_type=seen.source_type,
        format=seen.format,
        files=seen.files,
        bytes=seen.stored_bytes,
        complete=seen.complete,
        row_estimate=seen.row_estimate,
        columns=[ColumnModel(name=c.name, type=c.type, samples=list(c.samples)) for c in seen.columns],
        rows=[dict(row) for row in seen.rows],
        warnings=list(seen.warnings),
    )


@router.post("/estimate-cost", dependencies=ONCE)
async def estimate_cost(document: Document, service: PreviewsDep, user: CurrentUser) -> CostModel:
    """What an ingestion would cost in a month, from what is in its source now, and what that assumes."""
    cost = await service.estimate_cost(document, user)
    return CostModel(
        files=cost.files,
        bytes=cost.stored_bytes,
        new_bytes_per_month=cost.new_bytes_per_month,
        runs_per_month=round(cost.runs_per_month, 3),
        compute=ComputeCost(
            first_load=round(cost.first_load, 6),
            per_run=round(cost.compute_per_run, 6),
            per_month=round(cost.compute_per_month, 6),
        ),
        storage=MonthlyCost(per_month=round(cost.storage_per_month, 6)),
        discovery=DiscoveryCost(per_run=round(cost.discovery_per_run, 6), per_month=round(cost.discovery_per_month, 6)),
        total_per_month=round(cost.total_per_month, 6),
        assumptions=list(cost.assumptions),
        warnings=list(cost.warnings),
    )
