"""What is measured: every metric with its meaning, and its present values.

What runs do is done by other processes, so it is read from the database; only what this process itself does (calls to
Prefect, readers of events) is counted here. Of ingestions only the freshness has a series for each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from app.domain.errors import AutoloaderError
from app.domain.events import EventLog
from app.domain.ingestions import IngestionStatus, Method
from app.domain.live import LiveRows, Readings
from app.domain.runs import RunStatus

log = EventLog(__name__)

# Series of one metric: more ingestions than these are not told of one by one.
MOST_SERIES = 1_000
PREFIX = "autoloader_"


class MetricType(StrEnum):
    """How a metric's values are to be read."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: As it is scraped; a counter's ends in `_total`.
        text: What it says.
        labels: Names of its labels.
    """

    name: str
    type: MetricType
    text: str
    labels: tuple[str, ...] = ()


_C, _G, _H = MetricType.COUNTER, MetricType.GAUGE, MetricType.HISTOGRAM
METRICS = {
    metric.name.removeprefix(PREFIX): metric
    for metric in (
        Metric(
            "autoloader_database_up", _G, "1: the database answered this request. At 0 what comes from it is missing."
        ),
        Metric("autoloader_ingestions", _G, "Ingestions, by status.", ("status",)),
        Metric("autoloader_runs_open", _G, "Runs that are queued or at work now.", ("status", "method")),
        Metric("autoloader_runs_total", _C, "Runs that ended, by status.", ("status",)),
        Metric("autoloader_run_duration_seconds", _H, "From the beginning of a run's first attempt to its end."),
        Metric("autoloader_run_stops_total", _C, "Attempts that something stopped, by its code.", ("code",)),
        Metric("autoloader_run_deaths_total", _C, "Attempts whose process ended before they did."),
        Metric("autoloader_lease_losses_total", _C, "Attempts that found their lease in other hands, and stopped."),
        Metric("autoloader_commit_retries_total", _C, "Commits tried again: others were faster, or nobody answered."),
        Metric("autoloader_files_total", _C, "Files that batches loaded, or that failed.", ("outcome",)),
        Metric("autoloader_rows_total", _C, "Rows loaded."),
        Metric("autoloader_bytes_total", _C, "Stored bytes of loaded files."),
        Metric(
            "autoloader_ingestion_freshness_seconds",
            _G,
            "Since the end of the last successful run of an active ingestion.",
            ("ingestion_id",),
        ),
        Metric(
            "autoloader_ingestions_not_shown", _G, "Active ingestions without a series of their own, for want of room."
        ),
        Metric(
            "autoloader_queue_age_seconds", _G, "For how long the run is due that waits longest; 0: none.", ("method",)
        ),
        Metric("autoloader_prefect_up", _G, "1: Prefect answered last."),
        Metric("autoloader_prefect_breaker_open", _G, "1: Prefect was silent a moment ago, so that it is not asked."),
        Metric("autoloader_prefect_calls_total", _C, "Calls of this process to Prefect, by outcome.", ("outcome",)),
        Metric("autoloader_event_readers", _G, "Open event streams of this process."),
        Metric("autoloader_event_readers_dropped_total", _C, "Event streams that were ended for being too slow."),
    )
}
# Upper bounds of the histogram's buckets, in seconds; those of `persistence.counters`.
BOUNDS = ("1", "5", "15", "60", "300", "900", "3600", "+Inf")


@dataclass(frozen=True)
class Family:
    """A metric with its values.

    Args:
        samples: Values of the labels → value; a histogram has none.
        buckets: Of a histogram: (upper bound, how many were not above it).
        sum: Of a histogram: of all values.
    """

    metric: Metric
    samples: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    buckets: tuple[tuple[str, float], ...] = ()
    sum: float = 0.0


@dataclass(frozen=True)
class PrefectReadings:
    """How this process gets on with Prefect."""

    is_up: bool
    is_breaker_open: bool
    calls: Mapping[str, int]


@dataclass(frozen=True)
class ReaderReadings:
    """How many read events, and how many were sent away."""

    open: int
    dropped: int


class MetricsService:
    """Tells all metrics."""

    def __init__(
        self,
        rows: LiveRows,
        readers: Callable[[], ReaderReadings],
        prefect: Callable[[], PrefectReadings] | None,
        *,
        most_series: int = MOST_SERIES,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Read from `rows`; `prefect` is None where scheduling is off."""
        self._rows = rows
        self._readers = readers
        self._prefect = prefect
        self._most_series = most_series
        self._now_s = now_s

    async def families(self, tenant: str) -> Sequence[Family]:
        """Every metric with its present values; of single ingestions the tenant's.

        Where the database does not answer, those that need none.
        """
        try:
            readings = await asyncio.to_thread(self._rows.readings, most=self._most_series, tenant=tenant)
        except AutoloaderError as error:
            log.warning("metrics_without_database", code=error.code)
            return [_one("database_up", 0), *self._own()]
        now = datetime.fromtimestamp(self._now_s(), UTC)
        return [_one("database_up", 1), *of_database(readings, now), *self._own()]

    def _own(self) -> Iterable[Family]:
        readers = self._readers()
        yield _one("event_readers", readers.open)
        yield _one("event_readers_dropped_total", readers.dropped)
        if self._prefect is None:
            return
        prefect = self._prefect()
        yield _one("prefect_up", prefect.is_up)
        yield _one("prefect_breaker_open", prefect.is_breaker_open)
        yield _by("prefect_calls_total", prefect.calls)


def of_database(readings: Readings, now: datetime) -> Iterable[Family]:
    """The metrics that the database tells."""
    counters = readings.counters
    yield _by("ingestions", {status.value: readings.ingestions.get(status.value, 0) for status in IngestionStatus})
    states = [(status, method) for status in (RunStatus.QUEUED, RunStatus.RUNNING) for method in Method]
    yield Family(
        METRICS["runs_open"], {(s.value, m.value): readings.not_over.get((s.value, m.value), 0) for s, m in states}
    )
    ends = (RunStatus.SUCCESS, RunStatus.PARTIAL, RunStatus.FAILED, RunStatus.CANCELLED)
    ended = counters.get("runs_ended", {})
    yield _by("runs_total", {status.value: ended.get(status.value, 0) for status in ends})
    yield _duration(counters)
    stops = counters.get("stops", {})
    yield _by("run_stops_total", stops)
    yield _one("run_deaths_total", _sum(counters, "deaths"))
    yield _one("lease_losses_total", stops.get("lease_lost", 0))
    yield _one("commit_retries_total", _sum(counters, "commit_retries"))
    files = counters.get("files", {})
    yield _by("files_total", {outcome: files.get(outcome, 0) for outcome in ("loaded", "failed")})
    yield _one("rows_total", _sum(counters, "rows"))
    yield _one("bytes_total", _sum(counters, "bytes"))
    ages = {id_: max((now - at).total_seconds(), 0.0) for id_, at in readings.last_success.items()}
    yield _by("ingestion_freshness_seconds", ages)
    yield _one("ingestions_not_shown", readings.left_out)
    due = {method.value: readings.due_since.get(method.value, now) for method in Method}
    yield _by("queue_age_seconds", {method: max((now - at).total_seconds(), 0.0) for method, at in due.items()})


def _duration(counters: Mapping[str, Mapping[str, int]]) -> Family:
    counted = counters.get("run_duration", {})
    total = 0
    buckets = []
    for bound in BOUNDS:
        total += counted.get(bound, 0)
        buckets.append((bound, float(total)))
    return Family(METRICS["run_duration_seconds"], buckets=tuple(buckets), sum=_sum(counters, "run_duration_ms") / 1000)


def _sum(counters: Mapping[str, Mapping[str, int]], name: str) -> int:
    return sum(counters.get(name, {}).values())


def _one(name: str, value: float) -> Family:
    return Family(METRICS[name], {(): float(value)})


def _by(name: str, values: Mapping[str, float]) -> Family:
    return Family(METRICS[name], {(label,): float(value) for label, value in values.items()})
