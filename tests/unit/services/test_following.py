"""Following events: the stream is read as it was written, and what comes into the database is noticed."""

from __future__ import annotations

import pytest

from app.api.event_stream import text_of
from app.domain.live import EventFilter, EventKind
from app.services.event_feed import Beat, Reset
from app.services.following import ANYWAY_S, POLL_S, FollowedEvent, RowNews, parse_stream
from tests.fakes.live import MemoryLive

MINE = EventFilter("default", run_id="mine")


def test_the_stream_is_read_as_it_was_written() -> None:
    event = MemoryLive().tell(EventKind.RUN_SUCCESS, text="a\nb:  ü\u2028", status="success")
    text = "retry: 2000\n\n" + text_of(Reset(0)) + text_of(event) + text_of(Beat(7))
    reset, told, beat = parse_stream(text.split("\n"))
    assert reset == FollowedEvent(0, "reset", {"after": 0})
    assert told == FollowedEvent(1, "run.success", event.data)
    assert (told.ends_run, reset.ends_run) == (True, False)
    assert beat == FollowedEvent(7, "", {})


def test_an_event_that_broke_off_is_none() -> None:
    whole = text_of(MemoryLive().tell(EventKind.RUN_SUCCESS, status="success"))
    assert list(parse_stream(whole.rstrip("\n").split("\n"))) == []


class Pauses:
    """Time that goes by, in which one thing may happen."""

    def __init__(self, rows: MemoryLive, happens: str | None = None) -> None:
        self.rows = rows
        self.happens = happens
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) == 2 and self.happens is not None:
            self.rows.tell(EventKind.RUN_PROGRESS, self.happens)


def test_what_happens_to_a_run_ends_the_waiting_for_its_news_once() -> None:
    rows = MemoryLive()
    rows.tell(run_id="mine")
    pauses = Pauses(rows, "mine")
    news = RowNews(rows, MINE, pauses)
    rows.tell(run_id="mine")
    news.wait()
    assert pauses.seconds == []
    news.wait()
    assert pauses.seconds == [POLL_S] * 2


@pytest.mark.parametrize("happens", [None, "other"])
def test_without_news_the_waiting_ends_all_the_same(happens: str | None) -> None:
    rows = MemoryLive()
    pauses = Pauses(rows, happens)
    RowNews(rows, MINE, pauses).wait()
    assert sum(pauses.seconds) == ANYWAY_S


def test_a_database_that_is_away_is_left_to_the_one_who_looks() -> None:
    rows = MemoryLive()
    pauses = Pauses(rows)
    news = RowNews(rows, MINE, pauses)
    rows.is_away = True
    news.wait()
    assert pauses.seconds == [POLL_S]
