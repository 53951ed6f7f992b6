"""Which flow runs begin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from app.prefect.worker.admission import PATIENCE, Candidate, Queues, admitted

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
QUEUES = Queues(high_memory="high", priority="first")


def due(queue: str | None, *, since: timedelta = timedelta()) -> Candidate:
    return Candidate(uuid4(), queue, NOW - since)


def begun(*candidates: Candidate, idle: bool = True, alone: bool = False) -> list[UUID]:
    return admitted(candidates, QUEUES, is_idle=idle, is_alone=alone, now=NOW)


def ids(*candidates: Candidate) -> list[UUID]:
    return [one.id for one in candidates]


def test_what_is_due_begins_in_the_order_of_its_queues() -> None:
    some = (due("first"), due("default"), due(None))
    assert begun(*some) == ids(*some)
    assert begun(*some, idle=False) == ids(*some)
    assert begun() == []


def test_one_with_high_memory_begins_when_nothing_else_is_at_work_or_due() -> None:
    high, other = due("high"), due("default")
    assert begun(high, due("high")) == [high.id]
    assert begun(high, idle=False) == []
    assert begun(other, high) == [other.id]


def test_beside_one_with_high_memory_nothing_begins() -> None:
    assert begun(due("first"), due("default"), due("high"), idle=False, alone=True) == []
    # It has ended.
    other = due("default")
    assert begun(other, alone=True) == [other.id]


def test_one_with_high_memory_that_waits_for_long_is_made_room_for() -> None:
    high = due("high", since=PATIENCE + timedelta(seconds=1))
    first, other = due("first"), due("default")
    assert begun(other, high, idle=False) == []
    assert begun(other, high) == [high.id]
    assert begun(first, other, high) == [first.id]
    assert begun(other, due("high", since=PATIENCE), idle=False) == [other.id]
