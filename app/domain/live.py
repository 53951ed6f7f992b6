"""What is told of ingestions and runs as it happens: events, progress, and the lines of a run's log."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from app.domain.runs import RunStatus


class EventKind(enum.StrEnum):
    """What happened. The values are part of the contract."""

    INGESTION_CREATED = "ingestion.created"
    INGESTION_UPDATED = "ingestion.updated"
    INGESTION_PAUSED = "ingestion.paused"
    INGESTION_RESUMED = "ingestion.resumed"
    INGESTION_DELETED = "ingestion.deleted"
    RUN_QUEUED = "run.queued"
    RUN_RUNNING = "run.running"
    RUN_PROGRESS = "run.progress"
    # Who carries it out, its flow run, or the wish that it ends.
    RUN_UPDATED = "run.updated"
    RUN_SUCCESS = "run.success"
    RUN_PARTIAL = "run.partial"
    RUN_FAILED = "run.failed"
    RUN_CANCELLED = "run.cancelled"

    @property
    def ends_run(self) -> bool:
        """Whether nothing more comes of the run."""
        return self in _ENDS


_ENDS = frozenset({EventKind.RUN_SUCCESS, EventKind.RUN_PARTIAL, EventKind.RUN_FAILED, EventKind.RUN_CANCELLED})


def kind_of(status: RunStatus) -> EventKind:
    """The event of a run that came to be so."""
    return EventKind(f"run.{status.value}")


@dataclass(frozen=True)
class Event:
    """Something that happened, in the words of the moment in which it did.

    Args:
        id: Rises in the order in which events were committed; there may be gaps.
        body: JSON, without secrets.
    """

    id: int
    at: datetime
    kind: EventKind
    tenant: str
    ingestion_id: str
    run_id: str | None
    body: Mapping[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """What goes out to a reader."""
        return {"at": self.at.isoformat().replace("+00:00", "Z"), **self.body}


@dataclass(frozen=True)
class EventFilter:
    """Which events; None: any."""

    tenant: str | None = None
    ingestion_id: str | None = None
    run_id: str | None = None

    def takes(self, event: Event) -> bool:
        """Whether it is among them."""
        return (
            self.tenant in {None, event.tenant}
            and self.ingestion_id in {None, event.ingestion_id}
            and self.run_id in {None, event.run_id}
        )


@dataclass(frozen=True)
class EventPage:
    """Events in the order of their ids, and how far was looked: all up to `position` that fit are told."""

    events: tuple[Event, ...]
    position: int


@dataclass(frozen=True)
class EventBounds:
    """Which events are kept.

    Args:
        pruned: The events up to this id are gone.
        newest: The last one that was written; `pruned` where none is left.
    """

    pruned: int
    newest: int

    def has_all_after(self, event_id: int) -> bool:
        """Whether somebody who saw everything up to that id can go on from there, missing nothing."""
        return self.pruned <= event_id <= self.newest


@dataclass(frozen=True)
class RunProgress:
    """How far an attempt has come: read and written, which is not yet in the table.

    Args:
        total_files: Of the batches that have begun; it grows while files are still being found.
        total_bytes: The same in stored bytes.
    """

    files: int = 0
    rows: int = 0
    bytes: int = 0
    total_files: int = 0
    total_bytes: int = 0


@dataclass(frozen=True)
class RunLogLine:
    """A line of a run's log.

    Args:
        number: From 1 on; numbers that are missing between the first and the last lines were more than is kept.
        level: `info`, `warning` or `error`.
    """

    number: int
    at: datetime
    level: str
    message: str


@dataclass(frozen=True)
class RunLog:
    """Some lines of a run's log, in their order, and how many of the whole are not kept."""

    lines: tuple[RunLogLine, ...]
    left_out: int = 0


@dataclass(frozen=True)
class Readings:
    """What the database can be asked of how the whole service is.

    Args:
        counters: Name → label → how much so far; both are those of `persistence.counters`.
        not_over: (status, method) → how many runs are so now.
        due_since: Method → since when the run is due that waits longest; none waits where it is missing.
        ingestions: Status → how many.
        last_success: Ingestion id → end of its last successful run, those first that are longest ago.
        left_out: Ingestions that are not in `last_success` for there are too many.
    """

    counters: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    not_over: Mapping[tuple[str, str], int] = field(default_factory=dict)
    due_since: Mapping[str, datetime] = field(default_factory=dict)
    ingestions: Mapping[str, int] = field(default_factory=dict)
    last_success: Mapping[str, datetime] = field(default_factory=dict)
    left_out: int = 0


class Telling(Protocol):
    """Keeps what is told while a run works."""

    def tell_progress(
        self, run_id: str, attempt: int, progress: RunProgress | None, lines: Sequence[RunLogLine]
    ) -> None:
        """Keep how far that attempt has come (None: nothing new), and lines of its log, in one transaction.

        Both are told, in one event.
        Of a run that is over, or at work under a later attempt, only the lines are kept. A line whose number is taken
        is left out.
        """
        ...

    def last_line(self, run_id: str) -> int:
        """The number of the last line of a run's log; 0 where there is none."""
        ...


class LiveRows(Protocol):
    """What was told, for whoever asks. Every method is one transaction."""

    def event_bounds(self) -> EventBounds:
        """Which events are kept."""
        ...

    def events_after(self, event_id: int, wanted: EventFilter, *, limit: int) -> EventPage:
        """The events with higher ids that fit, `limit` at most.

        No event with an id up to the page's position comes to be seen later.
        """
        ...

    def knows_events_of(self, wanted: EventFilter) -> bool:
        """Whether there is such an ingestion or run of that tenant, or there are events of one that is gone."""
        ...

    def run_log(self, run_id: str, *, after: int, limit: int) -> RunLog:
        """Its lines with higher numbers; one more than `limit` where there are more."""
        ...

    def prune(self, *, events: int, events_age_s: float, logs_age_s: float) -> int:
        """Forget all but so many of the newest events, those that are older, and older lines of logs.

        Returns:
            How many events were forgotten.
        """
        ...

    def readings(self, *, most: int, tenant: str | None = None) -> Readings:
        """How the service is; of the ingestions of `tenant` (None: all) `most` at most are told of each."""
        ...
