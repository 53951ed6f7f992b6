"""Hands events to readers as they are committed, whichever process did.

One look at the table, a few times a second and only while somebody reads, serves all readers of a process. What it
found lately is kept for all of them together. A reader takes from there at his own pace; one who is further behind than
that is sent away, and comes back with the last id that he saw. So a reader who is slow costs the others nothing.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from app.domain.errors import AutoloaderError, NotFoundError, TooManyReadersError
from app.domain.events import EventLog
from app.domain.live import Event, EventFilter, LiveRows

log = EventLog(__name__)

POLL_S = 0.25
PAGE = 500
# Events that are kept for readers, about a kilobyte each.
KEPT = 2_000
MOST_READERS = 100
BEAT_S = 15.0


@dataclass(frozen=True)
class Reset:
    """Events that a reader has not seen are gone: what he knows may be out of date. He goes on after `position`."""

    position: int


@dataclass(frozen=True)
class Beat:
    """There was nothing for a while; everything up to `position` was looked at."""

    position: int


Told = Event | Reset | Beat


class EventFeed:
    """The events of one database, for the readers of one process; used in one event loop."""

    def __init__(
        self,
        rows: LiveRows,
        *,
        poll_s: float = POLL_S,
        beat_s: float = BEAT_S,
        kept: int = KEPT,
        most_readers: int = MOST_READERS,
    ) -> None:
        self._rows = rows
        self._poll_s = poll_s
        self.beat_s = beat_s
        self._kept = kept
        self._most_readers = most_readers
        self._readers: set[EventReader] = set()
        self._events: list[Event] = []
        # All events with ids above the first and up to the second are in the list.
        self._since = self._position = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        # Readers that were sent away for being too slow, since the process began.
        self.dropped = 0

    @property
    def readers(self) -> int:
        """How many there are."""
        return len(self._readers)

    @property
    def closed(self) -> asyncio.Event:
        """Set when there is nothing more to come, for the process ends."""
        return self._closed

    async def read(self, wanted: EventFilter, after: int | None) -> EventReader:
        """As `open`, for whoever names what he wants.

        Raises:
            NotFoundError: His tenant has no such ingestion or run, and had none that events are kept of.
            TooManyReadersError: There are as many as this process takes.
        """
        is_chosen = wanted.ingestion_id is not None or wanted.run_id is not None
        if is_chosen and not await asyncio.to_thread(self._rows.knows_events_of, wanted):
            raise NotFoundError("There is no such ingestion or run.")
        return await self.open(wanted, after)

    async def open(self, wanted: EventFilter, after: int | None) -> EventReader:
        """A reader of what comes after that event; None: after all that there are. He has to be closed.

        Raises:
            TooManyReadersError: There are as many as this process takes.
        """
        if len(self._readers) >= self._most_readers or self._closed.is_set():
            raise TooManyReadersError
        # Counted before anything is waited for, so that there are never more.
        reader = EventReader(self, self._rows, wanted)
        self._readers.add(reader)
        try:
            bounds = await asyncio.to_thread(self._rows.event_bounds)
        except BaseException:
            reader.close()
            raise
        if self._task is None or self._task.done():
            self._events = []
            self._since = self._position = bounds.newest
            self._task = asyncio.create_task(self._poll(), name="event-feed")
        if after is None or bounds.has_all_after(after):
            reader.begin(bounds.newest if after is None else after, has_lost=False)
        else:
            reader.begin(bounds.pruned if after < bounds.pruned else bounds.newest, has_lost=True)
        return reader

    async def close(self) -> None:
        """Let every reader end. Again: no change."""
        self.end()
        task, self._task = self._task, None
        if task is not None:
            # Not cancelled: a thread that is asking the database would go on, and outlive it.
            with suppress(AutoloaderError):
                await task

    def end(self) -> None:
        """Tell every reader, at once, that nothing more comes."""
        self._closed.set()
        self._wake()

    # --- for readers ------------------------------------------------------------------------------------------------

    def leave(self, reader: EventReader) -> None:
        """He reads no more."""
        self._readers.discard(reader)

    def after(self, position: int) -> tuple[list[Event], int] | None:
        """What is kept above a position, and up to which; None where the reader is too far behind."""
        if position < self._since:
            return None
        start = bisect.bisect_right(self._events, position, key=lambda event: event.id)
        return self._events[start:], max(self._position, position)

    # --- the look ---------------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        is_failing = False
        while self._readers and not self._closed.is_set():
            try:
                is_full = await self._look()
                is_failing = False
            except AutoloaderError as error:
                if not is_failing:
                    log.warning("events_not_read", code=error.code, reason=str(error))
                is_failing, is_full = True, False
            if not is_full:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closed.wait(), self._poll_s)

    async def _look(self) -> bool:
        """Look once; whether there may be more right now."""
        page = await asyncio.to_thread(self._rows.events_after, self._position, EventFilter(), limit=PAGE)
        self._position = page.position
        if page.events:
            self._keep(page.events)
            self._wake()
        return len(page.events) == PAGE

    def _keep(self, found: tuple[Event, ...]) -> None:
        self._events += found
        surplus = len(self._events) - self._kept
        if surplus > 0:
            self._since = self._events[surplus - 1].id
            del self._events[:surplus]

    def _wake(self) -> None:
        for reader in self._readers:
            reader.news.set()


class EventReader:
    """One who reads. `close` it when he is gone."""

    def __init__(self, feed: EventFeed, rows: LiveRows, wanted: EventFilter) -> None:
        self._feed = feed
        self._rows = rows
        self._wanted = wanted
        self._position = 0
        self._has_lost = False
        self._is_live = False
        self.news = asyncio.Event()

    def begin(self, position: int, *, has_lost: bool) -> None:
        """Go on after `position`; `has_lost`: something that he would have had to see is gone."""
        self._position = position
        self._has_lost = has_lost

    @property
    def closed(self) -> asyncio.Event:
        """Set when the process ends."""
        return self._feed.closed

    def close(self) -> None:
        """He reads no more. Again: no change."""
        self._feed.leave(self)

    def drop(self) -> None:
        """He is sent away, for he takes nothing."""
        self._feed.dropped += 1
        self.close()

    async def told(self, *, wait: bool = True) -> AsyncIterator[Told]:
        """What there is for him, until the process ends, or he is too slow; without `wait`, what there is now.

        Raises:
            AutoloaderError: The database does not answer.
        """
        if self._has_lost:
            yield Reset(self._position)
        while not self._feed.closed.is_set():
            self.news.clear()
            found = await (self._found() if wait else self._present())
            if found is None:
                self.drop()
                return
            for event in found:
                yield event
            if found:
                continue
            if not wait:
                yield Beat(self._position)
                return
            if not await self._is_news():
                yield Beat(self._position)

    async def _found(self) -> list[Event] | None:
        """What is next; None where he was left behind by what is kept."""
        kept = self._feed.after(self._position)
        if kept is None:
            return None if self._is_live else await self._earlier()
        events, self._position = kept
        # From here on he has to keep up.
        self._is_live = True
        return [event for event in events if self._wanted.takes(event)]

    async def _earlier(self) -> list[Event]:
        """What was before anybody looked: read for him alone, as fast as he takes it."""
        while True:
            before = self._position
            page = await asyncio.to_thread(self._rows.events_after, before, self._wanted, limit=PAGE)
            self._position = page.position
            if page.events or self._feed.after(self._position) is not None:
                return list(page.events)

    async def _present(self) -> list[Event]:
        page = await asyncio.to_thread(self._rows.events_after, self._position, self._wanted, limit=PAGE)
        self._position = page.position
        return list(page.events)

    async def _is_news(self) -> bool:
        try:
            await asyncio.wait_for(self.news.wait(), self._feed.beat_s)
        except TimeoutError:
            return False
        return True
