"""Events, logs and counts in memory."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.domain.access import DEFAULT_TENANT
from app.domain.errors import LedgerUnreachableError
from app.domain.live import Event, EventBounds, EventFilter, EventKind, EventPage, Readings, RunLog, RunLogLine

AT = datetime(2026, 11, 25, 10, tzinfo=UTC)


@dataclass
class MemoryLive:
    """Keeps the promises of `LiveRows`, and can be away."""

    is_away: bool = False
    counted: Readings = field(default_factory=Readings)
    logs: dict[str, list[RunLogLine]] = field(default_factory=dict)
    looks: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Begin with nothing."""
        self.events: list[Event] = []
        self.pruned = 0
        self._ids = itertools.count(1)

    def tell(self, kind: EventKind = EventKind.RUN_QUEUED, run_id: str | None = "r", **body: Any) -> Event:
        """Something happens to a run of the ingestion `i`."""
        with self._lock:
            event = Event(next(self._ids), AT, kind, DEFAULT_TENANT, "i", run_id, body)
            self.events.append(event)
            return event

    def _asked(self) -> None:
        if self.is_away:
            raise LedgerUnreachableError

    def event_bounds(self) -> EventBounds:
        self._asked()
        return EventBounds(self.pruned, self.events[-1].id if self.events else self.pruned)

    def events_after(self, event_id: int, wanted: EventFilter, *, limit: int) -> EventPage:
        self._asked()
        self.looks += 1
        with self._lock:
            newest = self.event_bounds().newest
            found = [event for event in self.events if event.id > event_id and wanted.takes(event)][:limit]
            return EventPage(tuple(found), found[-1].id if len(found) == limit else max(newest, event_id))

    def knows_events_of(self, wanted: EventFilter) -> bool:
        return any(wanted.takes(event) for event in self.events)

    def run_log(self, run_id: str, *, after: int, limit: int) -> RunLog:
        kept = self.logs.get(run_id, [])
        last = kept[-1].number if kept else 0
        return RunLog(tuple(line for line in kept if line.number > after)[: limit + 1], last - len(kept))

    def prune(self, *, events: int, events_age_s: float, logs_age_s: float) -> int:
        gone = self.events[: max(len(self.events) - events, 0)]
        self.events = self.events[len(gone) :]
        self.pruned = gone[-1].id if gone else self.pruned
        return len(gone)

    def readings(self, *, most: int, tenant: str | None = None) -> Readings:
        self._asked()
        return self.counted
