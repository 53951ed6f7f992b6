"""Dates and times as text, read exactly: integers all the way, within the years 1 to 9999 of UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass

MICROS = 1_000_000
MICRO_DIGITS = 6
SECONDS_PER_DAY = 86_400
# The first microsecond of year 1 and the last one of year 9999, since 1970.
FIRST_MICROS = -719_162 * SECONDS_PER_DAY * MICROS
LAST_MICROS = 2_932_897 * SECONDS_PER_DAY * MICROS - 1

_DATE = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_CLOCK = r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?"
_OFFSET = r"(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?"
_DATE_RE = re.compile(_DATE)
_TIME_RE = re.compile(_CLOCK)
_TIMESTAMP_RE = re.compile(f"{_DATE}[T ]{_CLOCK}{_OFFSET}")
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FEBRUARY = 2
_HOURS, _SIXTY = 24, 60


@dataclass(frozen=True, slots=True)
class Moment:
    """A date and time of day. `micros` since 1970, in UTC where `zoned`; not `exact` when finer digits were cut."""

    micros: int
    zoned: bool
    exact: bool


def parse_date(text: str) -> int | None:
    """Days since 1970-01-01 of a text `YYYY-MM-DD` that names a day of the calendar, year 1 to 9999."""
    match = _DATE_RE.fullmatch(text)
    return None if match is None else _days(*(int(part) for part in match.groups()))


def parse_timestamp(text: str) -> Moment | None:
    """The moment that `YYYY-MM-DD[T ]HH:MM[:SS[.f]][offset]` names, if the calendar and the clock know it."""
    match = _TIMESTAMP_RE.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    days = _days(int(year), int(month), int(day))
    clock = _clock(hour, minute, second, fraction)
    shift = _offset_seconds(offset)
    if days is None or clock is None or shift is None:
        return None
    micros, exact = clock
    total = (days * SECONDS_PER_DAY - shift) * MICROS + micros
    # An offset may lead out of the years that every reader of the table knows.
    if not FIRST_MICROS <= total <= LAST_MICROS:
        return None
    return Moment(total, zoned=offset is not None, exact=exact)


def parse_time(text: str) -> tuple[int, bool] | None:
    """Microseconds since midnight of a text `HH:MM[:SS[.f]]`, and whether they are all of it."""
    match = _TIME_RE.fullmatch(text)
    return None if match is None else _clock(*match.groups())


def _days(year: int, month: int, day: int) -> int | None:
    """Days since 1970-01-01 in the Gregorian calendar; None where there is no such day."""
    if not (year >= 1 and 1 <= month <= len(_MONTH_DAYS) and day >= 1):
        return None
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > _MONTH_DAYS[month - 1] + (month == _FEBRUARY and leap):
        return None
    # Years are counted from March, so that the leap day is the last one of its year.
    shifted = year - (month <= _FEBRUARY)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + of_year - 719_468


def _clock(hour: str, minute: str, second: str | None, fraction: str | None) -> tuple[int, bool] | None:
    hours, minutes, seconds = int(hour), int(minute), int(second or 0)
    if hours >= _HOURS or minutes >= _SIXTY or seconds >= _SIXTY:
        return None
    digits = fraction or ""
    micros = int(digits[:MICRO_DIGITS].ljust(MICRO_DIGITS, "0"))
    total = ((hours * _SIXTY + minutes) * _SIXTY + seconds) * MICROS + micros
    return total, not digits[MICRO_DIGITS:].strip("0")


def _offset_seconds(offset: str | None) -> int | None:
    if offset is None or offset == "Z":
        return 0
    digits = offset[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours >= _HOURS or minutes >= _SIXTY:
        return None
    seconds = (hours * _SIXTY + minutes) * _SIXTY
    return -seconds if offset[0] == "-" else seconds
