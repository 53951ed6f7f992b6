"""Follows events: their stream as it goes over the wire, and the events of a database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.errors import RetriableError
from app.domain.live import EventFilter, EventKind, LiveRows

PAGE = 500
POLL_S = 0.5
# Whoever waits for news looks once in so long although there are none: news are a hint, and a look settles.
ANYWAY_S = 10.0


@dataclass(frozen=True)
class FollowedEvent:
    """An event as it came.

    Args:
        id: To go on after.
        kind: What happened; `reset`: events before this one are gone, and what is known may be out of date. Empty:
            nothing did, and the id says how far was looked.
        data: Its JSON.
    """

    id: int
    kind: str
    data: Mapping[str, Any]

    @property
    def ends_run(self) -> bool:
        """Whether nothing more comes of the run that it tells of."""
        return self.kind in set(EventKind) and EventKind(self.kind).ends_run


def parse_stream(lines: Iterable[str]) -> Iterator[FollowedEvent]:
    """Events of a stream of server-sent events, from its lines; one with an empty kind only tells an id.

    Raises:
        ValueError: What is there is no such stream.
    """
    event_id, kind, data, is_news = 0, "", "", False
    for line in lines:
        if not line:
            if is_news:
                yield FollowedEvent(event_id, kind, json.loads(data) if data else {})
            kind, data, is_news = "", "", False
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id" and value.isdecimal():
            event_id, is_news = int(value), True
        elif name == "event":
            kind = value
        elif name == "data":
            data += value


class RowNews:
    """Tells that there are new events in the database, whichever process wrote them."""

    def __init__(self, rows: LiveRows, wanted: EventFilter, pause: Callable[[float], None]) -> None:
        """Of those events that come from now on; `pause` lets so many seconds go by.

        Raises:
            AutoloaderError: The database does not answer.
        """
        self._rows = rows
        self._wanted = wanted
        self._pause = pause
        self._position = rows.event_bounds().newest

    def wait(self) -> None:
        """Until there is one that was not there when this was last waited for, or `ANYWAY_S` are over."""
        for _ in range(round(ANYWAY_S / POLL_S)):
            try:
                page = self._rows.events_after(self._position, self._wanted, limit=PAGE)
            except RetriableError:
                # Whoever looks next hears why.
                self._pause(POLL_S)
                return
            self._position = page.position
            if page.events:
                return
            self._pause(POLL_S)
