from __future__ import annotations

from collections.abc import Mapping

import pytest

from app.domain.history import (
    GC_ENABLED,
    KEEP,
    LEAST_GOING,
    MAX_AGE_MS,
    MOST,
    NEW_TABLE_HISTORY,
    History,
    PastRef,
    PastSnapshot,
    Retention,
    retention,
)

DAY_MS = 24 * 3600 * 1000


def line(count: int, *, every_ms: int = 1000) -> dict[int, PastSnapshot]:
    """So many snapshots, one after the other, with the ids from 1."""
    return {n: PastSnapshot(n, n - 1 or None, n * every_ms) for n in range(1, count + 1)}


def history(count: int, *refs: PastRef, every_ms: int = 1000) -> History:
    return History(line(count, every_ms=every_ms), count, (PastRef(count, is_branch=True), *refs))


def going(count: int, wanted: Retention, *refs: PastRef, every_ms: int = 1000) -> set[int]:
    return set(history(count, *refs, every_ms=every_ms).going(wanted))


def numbers(first: int, last: int) -> set[int]:
    return set(range(first, last + 1))


@pytest.mark.parametrize(
    ("properties", "wanted"),
    [
        ({}, None),
        ({MOST: "10"}, None),
        ({KEEP: "3"}, Retention(3, 5 * DAY_MS)),
        ({MAX_AGE_MS: "60000"}, Retention(1, 60_000)),
        ({KEEP: "0", MOST: "0"}, Retention(1, 5 * DAY_MS)),
        ({KEEP: "3", MOST: "7"}, Retention(3, 5 * DAY_MS, 7)),
        ({KEEP: "3", GC_ENABLED: "false"}, None),
        ({KEEP: "3", GC_ENABLED: "true"}, Retention(3, 5 * DAY_MS)),
        ({KEEP: "three"}, None),
        ({KEEP: "-1"}, None),
        ({KEEP: "3", MAX_AGE_MS: ""}, None),
        ({KEEP: "3", MOST: "1e3"}, None),
        (NEW_TABLE_HISTORY, Retention(100, 7 * DAY_MS, 200)),
    ],
)
def test_properties_say_what_is_kept_and_what_is_not_understood_keeps_all(
    properties: Mapping[str, str], wanted: Retention | None
) -> None:
    assert retention(properties) == wanted


def test_the_newest_stay_however_old_they_are() -> None:
    assert going(40, Retention(30, 0)) == numbers(1, 10)


def test_what_is_young_enough_stays() -> None:
    assert going(40, Retention(1, 20_000)) == numbers(1, 19)


def test_too_few_are_not_worth_a_commit() -> None:
    assert going(30 + LEAST_GOING - 1, Retention(30, 0)) == set()
    assert len(going(30 + LEAST_GOING, Retention(30, 0))) == LEAST_GOING


def test_above_the_most_age_does_not_count_and_half_of_them_stay() -> None:
    assert going(100, Retention(20, DAY_MS, 100)) == set()
    assert going(101, Retention(20, DAY_MS, 100)) == numbers(1, 51)
    assert going(101, Retention(80, DAY_MS, 100)) == numbers(1, 21)
    assert going(600, Retention(500, DAY_MS, 100)) == numbers(1, 100)


def test_a_table_of_ours_keeps_a_week_of_hourly_loads_and_no_more_than_two_hundred() -> None:
    wanted = retention(NEW_TABLE_HISTORY)
    assert wanted is not None
    hour_ms = 3600 * 1000
    assert going(7 * 24 + LEAST_GOING, wanted, every_ms=hour_ms) == set()
    assert going(7 * 24 + 1 + LEAST_GOING, wanted, every_ms=hour_ms) == numbers(1, LEAST_GOING)
    assert going(200, wanted) == set()
    assert going(201, wanted) == numbers(1, 101)


def test_clocks_that_disagree_leave_no_hole() -> None:
    snapshots = line(40)
    snapshots[5] = PastSnapshot(5, 4, 39_000)
    assert set(History(snapshots, 40).going(Retention(1, 20_000))) == numbers(1, 19)
    # By its maker's clock, number 30 is older than all.
    snapshots[30] = PastSnapshot(30, 29, 0)
    assert set(History(snapshots, 40).going(Retention(1, 20_000))) == numbers(1, 30)


def test_what_is_named_stays() -> None:
    tag = PastRef(7, is_branch=False)
    assert going(40, Retention(10, 0), tag) == numbers(1, 30) - {7}


def test_a_branch_keeps_its_own_newest() -> None:
    assert going(40, Retention(10, 0), PastRef(15, is_branch=True)) == numbers(1, 5) | numbers(16, 30)
    own = PastRef(15, is_branch=True, keep=2, max_age_ms=4_000)
    assert going(40, Retention(10, 0), own) == numbers(1, 10) | numbers(16, 30)


def test_what_is_no_ancestor_stays() -> None:
    """Somebody's staged work, or what a rollback left."""
    snapshots = line(40) | {50: PastSnapshot(50, 3, 0), 51: PastSnapshot(51, 50, 0)}
    assert set(History(snapshots, 40).going(Retention(10, 0))) == numbers(1, 30)


def test_a_line_that_was_cut_before_ends_there() -> None:
    snapshots = {n: s for n, s in line(60).items() if n > 20 or n == 5}
    assert set(History(snapshots, 60).going(Retention(10, 0))) == numbers(21, 50)


def test_a_line_that_bites_its_tail_ends() -> None:
    snapshots = line(20) | {1: PastSnapshot(1, 20, 1000)}
    assert set(History(snapshots, 20).going(Retention(10, 0))) == numbers(1, 10)


def test_a_table_without_a_snapshot_lets_none_go() -> None:
    assert History({}, None).going(Retention(1, 0, 1)) == ()
