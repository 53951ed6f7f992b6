"""Days on which clocks change, by the code with which the Prefect server itself tells when a cron is due."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from prefect.server.schemas.schedules import CronSchedule

from app.domain.ingestions import Schedule
from app.services.schedules import cron_of

# Both days of a year in a zone of the north, one of the south, and one whose clock moves by half an hour.
CHANGES = [
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("Europe/Berlin", date(2026, 3, 29)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("Pacific/Auckland", date(2026, 4, 5)),
    ("Pacific/Auckland", date(2026, 9, 27)),
]


def fired(schedule: Schedule, day: date, ahead: int) -> list[datetime]:
    """When Prefect fires from two days before that one to two days after it, asked as its scheduler asks.

    It asks again and again for the next few times; around the change of the clocks, here, every half hour.
    """
    begin = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(schedule.timezone)) - timedelta(days=2)
    asked = [begin.astimezone(UTC) + timedelta(hours=6 * n) for n in range(16)]
    asked += [begin.astimezone(UTC) + timedelta(days=2, minutes=30 * n) for n in range(9)]
    made: set[datetime] = set()
    for now in asked:
        cron = cron_of(schedule, now)
        theirs = CronSchedule(cron=cron.expression, timezone=cron.timezone)
        made |= {
            datetime.fromtimestamp(one.timestamp(), UTC) for one in theirs._get_dates_generator(n=ahead, start=now)
        }
    return sorted(one for one in made if begin <= one < begin + timedelta(days=4))


@pytest.mark.parametrize(("zone", "day"), CHANGES)
@pytest.mark.parametrize("time", ["01:30", "02:00", "02:30", "14:30"])
def test_a_daily_run_is_neither_lost_nor_doubled(zone: str, day: date, time: str) -> None:
    moments = fired(Schedule("daily", time=time, timezone=zone), day, 3)
    days = [one.astimezone(ZoneInfo(zone)).date() for one in moments]
    assert days == [day + timedelta(days=n) for n in range(-2, 2)]


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_an_hourly_run_has_no_gap(zone: str, day: date) -> None:
    moments = fired(Schedule("hourly", timezone=zone), day, 8)
    assert len(moments) >= 95
    assert {later - earlier for earlier, later in pairwise(moments)} == {timedelta(hours=1)}
    assert {one.astimezone(ZoneInfo(zone)).minute for one in moments} == {0}


def test_prefect_itself_leaves_an_hour_out_which_is_why_it_is_asked_in_utc() -> None:
    """Should this fail, hourly schedules may be given in their own zone."""
    start = datetime(2026, 11, 1, 4, tzinfo=UTC)
    theirs = CronSchedule(cron="0 * * * *", timezone="America/New_York")._get_dates_generator(n=4, start=start)
    moments = [datetime.fromtimestamp(one.timestamp(), UTC) for one in theirs]
    assert max(later - earlier for earlier, later in pairwise(moments)) == timedelta(hours=2)
