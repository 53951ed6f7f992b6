from __future__ import annotations

import datetime as dt

from hypothesis import assume, given
from hypothesis import strategies as st

from app.engines.embedded.text.temporal import parse_date, parse_time, parse_timestamp

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICRO = dt.timedelta(microseconds=1)


@given(st.dates())
def test_dates_count_days_as_the_calendar_does(day: dt.date) -> None:
    assert parse_date(day.isoformat()) == day.toordinal() - dt.date(1970, 1, 1).toordinal()


@given(st.datetimes(), st.integers(-1439, 1439), st.sampled_from(" T"))
def test_moments_are_what_python_says(moment: dt.datetime, minutes: int, between: str) -> None:
    # No offset leads out of the calendar from here.
    assume(1 < moment.year < 9999)
    text = moment.isoformat(sep=between)
    naive = parse_timestamp(text)
    assert naive is not None
    assert (naive.micros, naive.zoned, naive.exact) == ((moment.replace(tzinfo=dt.UTC) - EPOCH) // MICRO, False, True)
    sign = "-" if minutes < 0 else "+"
    hours, rest = divmod(abs(minutes), 60)
    for colon in (":", ""):
        zoned = parse_timestamp(f"{text}{sign}{hours:02}{colon}{rest:02}")
        assert zoned is not None
        assert zoned.zoned
        assert zoned.micros == naive.micros - minutes * 60_000_000


@given(st.text(alphabet="0129-:T .+Z", max_size=26))
def test_no_text_breaks_the_parsers(text: str) -> None:
    for parse in (parse_date, parse_time, parse_timestamp):
        parse(text)


def test_days_that_are_not_there() -> None:
    for text in ("2023-02-29", "2100-02-29", "2024-04-31", "2024-00-10", "2024-13-10", "2024-01-00", "0000-12-31"):
        assert parse_date(text) is None


def test_digits_beyond_microseconds() -> None:
    assert parse_time("00:00:00.0000011") == (1, False)
    assert parse_time("00:00:00.00000100") == (1, True)
    assert parse_time("23:59") == (86_340_000_000, True)
