"""Schedules of ingestions: whether one makes sense, which cron it amounts to, and when it is due. Pure.

What the scheduler is given is chosen so that days on which clocks change neither lose nor double a run. Its own cron
loses the repeated hour in autumn where an hourly one is given in local time, so what runs every hour goes to it in UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from app.domain.errors import InvalidFieldError
from app.domain.ingestions import Schedule

FREQUENCIES = ("hourly", "daily", "weekly", "custom")
DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
# Which of the fields beside timezone mean something with a frequency.
_USED = {
    "hourly": frozenset[str](),
    "daily": frozenset({"time"}),
    "weekly": frozenset({"time", "day_of_week"}),
    "custom": frozenset({"cron_expression"}),
}
_TIME = re.compile(r"(?P<hour>\d{1,2}):(?P<minute>\d{2})", re.ASCII)
# Files beside those of the zones: with another clock in them on each machine, or one that counts leap seconds.
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})
_NO_ZONES_BELOW = ("posix/", "right/")
# What every cron understands alike: numbers, names, lists, ranges and steps; no seconds, no `L`, no `#`, no `@daily`.
_TERM = r"(?:\*|[0-9]{1,2}(?:-[0-9]{1,2})?)(?:/[0-9]{1,2})?"
_MONTH = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_DAY = "SUN|MON|TUE|WED|THU|FRI|SAT"
_NUMBERS = re.compile(rf"{_TERM}(?:,{_TERM})*")
_MONTHS = re.compile(rf"(?:{_TERM}|(?:{_MONTH})(?:-(?:{_MONTH}))?)(?:,(?:{_TERM}|(?:{_MONTH})(?:-(?:{_MONTH}))?))*")
_DAYS = re.compile(rf"(?:{_TERM}|(?:{_DAY})(?:-(?:{_DAY}))?)(?:,(?:{_TERM}|(?:{_DAY})(?:-(?:{_DAY}))?))*")


@dataclass(frozen=True)
class Cron:
    """Five fields and the zone whose clock they are read by."""

    expression: str
    timezone: str


def check_schedule(schedule: Schedule) -> None:
    """Refuse a schedule that says nothing, or two things.

    Raises:
        InvalidFieldError: The message names the field.
    """
    if schedule.frequency not in FREQUENCIES:
        known = f"{', '.join(FREQUENCIES[:-1])} or {FREQUENCIES[-1]}"
        raise _refused("frequency", schedule.frequency, "has no meaning.", f"Use {known}.")
    zone_of(schedule)
    for name in ("time", "day_of_week", "cron_expression"):
        value = getattr(schedule, name)
        if value is not None and name not in _USED[schedule.frequency]:
            remedy = "Set it to null, or choose another frequency."
            raise _refused(name, value, f"has no meaning beside frequency {schedule.frequency}.", remedy)
    if schedule.frequency == "custom":
        _check_expression(schedule)
    _clock(schedule)
    _day(schedule)


def cron_of(schedule: Schedule, at: datetime) -> Cron:
    """What the scheduler is given for it.

    Args:
        schedule: What was asked for.
        at: Now. In the few zones whose distance from UTC changes by less than an hour, what runs every hour has another
            cron in summer than in winter; ask again when clocks have changed.

    Raises:
        InvalidFieldError: The schedule does not make sense.
    """
    check_schedule(schedule)
    if schedule.frequency == "hourly":
        return Cron(f"{-_offset_minutes(schedule, at) % 60} * * * *", "UTC")
    if schedule.frequency == "custom":
        return _custom(schedule, at)
    hour, minute = _clock(schedule)
    day = _day(schedule) if schedule.frequency == "weekly" else "*"
    return Cron(f"{minute} {hour} * * {day}", schedule.timezone)


def slots(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """The next times at which it is due, later than `after`, in UTC.

    A local time that does not exist is moved on by as much as the clock is; of one that exists twice the first counts.
    The scheduler itself is up to that much earlier: hold nothing against these times to the minute.

    Raises:
        InvalidFieldError: The schedule does not make sense.
    """
    cron = cron_of(schedule, after)
    if cron.timezone == "UTC":
        start = after.astimezone(UTC).replace(tzinfo=None)
        return [slot.replace(tzinfo=UTC) for slot in islice(CronSim(cron.expression, start), count)]
    return list(islice(_local_slots(cron, after), count))


def _local_slots(cron: Cron, after: datetime) -> Iterator[datetime]:
    zone = ZoneInfo(cron.timezone)
    # From a day before, for in the hour that exists twice the clock's reading does not tell what is over.
    start = after.astimezone(zone).replace(tzinfo=None) - timedelta(days=1)
    last = after.astimezone(UTC)
    for slot in CronSim(cron.expression, start):
        moment = slot.replace(tzinfo=zone).astimezone(UTC)
        if moment > last:
            last = moment
            yield moment


def zone_of(schedule: Schedule) -> ZoneInfo:
    """Its time zone.

    Raises:
        InvalidFieldError: Nobody knows it.
    """
    remedy = "Use a name such as UTC, Europe/Berlin or America/New_York."
    if schedule.timezone in _NO_ZONES or schedule.timezone.startswith(_NO_ZONES_BELOW):
        raise _refused("timezone", schedule.timezone, "is not the same on every machine.", remedy)
    try:
        return ZoneInfo(schedule.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _refused("timezone", schedule.timezone, "is no time zone.", remedy) from None


def _offset_minutes(schedule: Schedule, at: datetime) -> int:
    offset = at.astimezone(zone_of(schedule)).utcoffset()
    return 0 if offset is None else int(offset.total_seconds()) // 60


def _custom(schedule: Schedule, at: datetime) -> Cron:
    fields = (schedule.cron_expression or "").upper().split()
    # In a zone of whole hours these are the same moments in UTC, where no hour is skipped.
    if fields[1:] == ["*"] * 4 and _offset_minutes(schedule, at) % 60 == 0:
        return Cron(" ".join(fields), "UTC")
    return Cron(" ".join(fields), schedule.timezone)


def _check_expression(schedule: Schedule) -> None:
    text = schedule.cron_expression
    remedy = "Give minute, hour, day of the month, month and day of the week, such as `*/15 6-20 * * MON-FRI`."
    if not text:
        raise _refused("cron_expression", text, "is needed with frequency custom.", remedy)
    fields = text.upper().split()
    patterns = (_NUMBERS, _NUMBERS, _NUMBERS, _MONTHS, _DAYS)
    if len(fields) != len(patterns) or not all(p.fullmatch(f) for p, f in zip(patterns, fields, strict=True)):
        raise _refused("cron_expression", text, "is no cron expression.", remedy)
    try:
        if next(CronSim(" ".join(fields), datetime(2000, 1, 1)), None) is None:  # noqa: DTZ001 - a reading of the clock
            raise _refused("cron_expression", text, "is never due.", remedy)
    except CronSimError as error:
        raise _refused("cron_expression", text, f"is no cron expression ({error}).", remedy) from error


def _clock(schedule: Schedule) -> tuple[int, int]:
    text = schedule.time
    if text is None:
        return 0, 0
    found = _TIME.fullmatch(text)
    hour, minute = (int(found["hour"]), int(found["minute"])) if found else (24, 60)
    if hour > 23 or minute > 59:  # noqa: PLR2004 - as clocks are
        raise _refused("time", text, "is no time of day.", "Give it as HH:MM, from 00:00 to 23:59.")
    return hour, minute


def _day(schedule: Schedule) -> int:
    given = schedule.day_of_week
    text = str(given).strip().lower()
    if given is None:
        return 0
    if not isinstance(given, bool):
        if text in {str(number) for number in range(8)}:
            return int(text) % 7
        for number, name in enumerate(DAYS):
            if text in {name, name[:3]}:
                return number
    raise _refused("day_of_week", given, "is no day.", "Use monday to sunday, or 0 (Sunday) to 6.")


def _refused(name: str, value: object, why: str, remedy: str) -> InvalidFieldError:
    return InvalidFieldError(f"schedule.{name} = {value!r} {why}", remedy=remedy, field=f"schedule.{name}")
