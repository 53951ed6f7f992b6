"""What an ingestion would cost in a month, from what is really in its source, and what that assumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.services.preflight import LoadRequest, OpenSource
from app.services.source_looks import RECENT, SourceLook, look

DAYS_PER_MONTH = 365.25 / 12
BYTES_PER_GB = 1e9
# Stored bytes that one machine loads in a second, and what a run takes beside them. docs/explanation/performance.md
# has what was measured; these are on the careful side of it.
BYTES_PER_SECOND = 50e6
SECONDS_PER_RUN = 5.0
# A machine that loads counts as so many units of compute.
DBU_PER_HOUR = 1.0
# Keys that one request of a listing gives.
_KEYS_PER_LIST = {"s3": 1_000, "gcs": 1_000, "azure_blob": 5_000}


@dataclass(frozen=True)
class Prices:
    """In US dollars."""

    per_dbu_hour: float = 0.40
    storage_per_gb_month: float = 0.023
    per_1000_list_operations: float = 0.005


@dataclass(frozen=True)
class CostEstimate:
    """In US dollars, as of what the source holds now."""

    files: int
    stored_bytes: int
    runs_per_month: float
    new_bytes_per_month: int
    compute_per_run: float
    compute_per_month: float
    first_load: float
    storage_per_month: float
    discovery_per_run: float
    discovery_per_month: float
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def total_per_month(self) -> float:
        """What a month costs once the first load is done."""
        return self.compute_per_month + self.storage_per_month + self.discovery_per_month


def estimate_source(
    open_source: OpenSource, keep_out: Sequence[str], request: LoadRequest, prices: Prices, runs_per_month: float | None
) -> CostEstimate:
    """What loading the source of `request` costs. Lists it, reads no file, writes nothing.

    Args:
        open_source: Opens it.
        keep_out: Folders of ours that no source may find files in.
        request: What is asked about.
        prices: What things cost.
        runs_per_month: As its schedule has them; None where it has no schedule.

    Raises:
        AutoloaderError: As a load would before it reads a file.
    """
    now = datetime.now(UTC)
    return estimate(look(request, open_source, keep_out, now), prices, runs_per_month, now)


def estimate(seen: SourceLook, prices: Prices, runs_per_month: float | None, now: datetime) -> CostEstimate:
    """The same of a source that was looked at."""
    runs = 1.0 if runs_per_month is None else runs_per_month
    monthly = _new_bytes_per_month(seen, now)
    # A cron of the 29th of February fires less than once a year.
    per_run = _compute(monthly / max(runs, 1 / 48), prices)
    keys = _KEYS_PER_LIST.get(seen.source_type)
    lists = math.ceil(max(seen.files, 1) / keys) if keys else 0
    discovery = lists * prices.per_1000_list_operations / 1_000
    return CostEstimate(
        files=seen.files,
        stored_bytes=seen.stored_bytes,
        runs_per_month=runs,
        new_bytes_per_month=monthly,
        compute_per_run=per_run,
        compute_per_month=per_run * runs,
        first_load=_compute(seen.stored_bytes, prices) + discovery,
        storage_per_month=seen.stored_bytes / BYTES_PER_GB * prices.storage_per_gb_month,
        discovery_per_run=discovery,
        discovery_per_month=discovery * runs,
        assumptions=_assumptions(seen, prices, runs_per_month),
        warnings=tuple(seen.warnings),
    )


def _compute(stored_bytes: float, prices: Prices) -> float:
    hours = (SECONDS_PER_RUN + stored_bytes / BYTES_PER_SECOND) / 3600
    return hours * DBU_PER_HOUR * prices.per_dbu_hour


def _new_bytes_per_month(seen: SourceLook, now: datetime) -> int:
    """What lands in a month: what landed in the last 30 days, or, in a younger source, at the pace it has had."""
    if seen.oldest_at is None:
        return 0
    days = min(max(now - seen.oldest_at, timedelta(days=1)), RECENT) / timedelta(days=1)
    return round(seen.recent_bytes * DAYS_PER_MONTH / days)


def _assumptions(seen: SourceLook, prices: Prices, runs_per_month: float | None) -> tuple[str, ...]:
    keys = _KEYS_PER_LIST.get(seen.source_type)
    growth = f"""As many bytes land in a month as in the last {RECENT.days} days; in a source that is younger, at its \
pace so far, of a day at least."""
    runs = "No schedule: one run a month."
    if runs_per_month is not None:
        runs = f"{runs_per_month:,.1f} runs a month, as the schedule has them."
    compute = f"""A run takes {SECONDS_PER_RUN:.0f} s, and a second for each {BYTES_PER_SECOND / 1e6:.0f} MB that are \
new, on one machine of {DBU_PER_HOUR:g} DBU an hour; {prices.per_dbu_hour:g} USD a DBU-hour (COST_PER_DBU_HOUR)."""
    room = f"""The table takes as much room as the files do as they are stored; {prices.storage_per_gb_month:g} USD a \
GB and month (STORAGE_COST_PER_GB)."""
    listing = "Listing a local folder costs nothing."
    if keys:
        listing = f"""A listing gives {keys:,} files a request; {prices.per_1000_list_operations:g} USD for 1,000 \
requests (LIST_OPERATION_COST_PER_1000)."""
    left_out = "Requests for the files themselves, traffic between regions and taxes are left out."
    return growth, runs, compute, room, listing, left_out
