"""The listing and the ledger meet in key order, and neither is held."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.discovery import Sighting, in_key_order, just_before, merge_join
from app.domain.errors import LedgerUnreadableError
from app.domain.files import FileState, LedgerFile, SourceFile

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class MemorySorter:
    """Sorts in memory."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.closed = 0

    def remember(self, file: SourceFile) -> None:
        self.passed.add(file.key)

    def sort(self, rest: Iterator[SourceFile]) -> Iterator[SourceFile]:
        unique = {file.key: file for file in reversed(list(rest)) if file.key not in self.passed}
        yield from sorted(unique.values(), key=lambda file: file.order)

    def close(self) -> None:
        self.closed += 1


def _file(key: str, version: str = "1") -> SourceFile:
    return SourceFile(key, version, 1, MOMENT)


def _row(key: str, version: str = "1") -> LedgerFile:
    return LedgerFile(key, version, FileState.SUCCESS)


def _ledger(*keys: str) -> list[LedgerFile]:
    return sorted((_row(key) for key in keys), key=lambda row: row.key.encode())


class Ledger:
    """Rows in key order, which notes how it is read."""

    def __init__(self, rows: list[LedgerFile]) -> None:
        self.rows = rows
        self.reads: list[str] = []
        self.pulled = 0

    def __call__(self, after_key: str) -> Iterator[LedgerFile]:
        self.reads.append(after_key)
        for row in self.rows:
            if row.key.encode() > after_key.encode():
                self.pulled += 1
                yield row


def _ordered(keys: list[str]) -> tuple[list[str], list[str], MemorySorter]:
    sorter, told = MemorySorter(), list[str]()
    files = list(in_key_order(iter([_file(key) for key in keys]), sorter, told.append))
    return [file.key for file in files], told, sorter


def test_keys_that_rise_pass_through_one_by_one() -> None:
    pulled: list[str] = []

    def listing() -> Iterator[SourceFile]:
        for key in ("a", "b", "c"):
            pulled.append(key)
            yield _file(key)

    files = in_key_order(listing(), MemorySorter(), pytest.fail)
    assert next(files).key == "a"
    assert pulled == ["a"]
    assert [file.key for file in files] == ["b", "c"]


def test_order_is_that_of_utf_8_bytes() -> None:
    # As UTF-16, the character beyond the basic plane would come before the other.
    keys = ["a!", "a-b/x", "a.json", "a/x", "é", "\uffee", "\U0001f600"]
    assert _ordered(keys)[:2] == (keys, [])


def test_the_rest_is_sorted_from_the_first_key_that_does_not_rise() -> None:
    keys, told, sorter = _ordered(["b", "d", "c", "e", "a"])
    assert keys == ["b", "d", "a", "c", "e"]
    assert told == ["c"]
    assert sorter.closed == 1


def test_a_key_shows_once() -> None:
    assert _ordered(["a", "a", "b"])[:2] == (["a", "b"], [])
    assert _ordered(["b", "c", "a", "c", "b", "a"])[0] == ["b", "c", "a"]


def test_the_first_sight_of_a_key_counts() -> None:
    listing = iter([_file("a", "1"), _file("a", "2"), _file("b")])
    files = list(in_key_order(listing, MemorySorter(), pytest.fail))
    assert [(file.key, file.version) for file in files] == [("a", "1"), ("b", "1")]


def test_the_sorter_is_closed_when_nobody_reads_on() -> None:
    sorter = MemorySorter()
    files = in_key_order(iter([_file("a"), _file("b")]), sorter, pytest.fail)
    next(files)
    files.close()  # type: ignore[attr-defined]
    assert sorter.closed == 1


@given(st.lists(st.text(max_size=3)))
def test_nothing_is_lost_and_nothing_doubled(keys: list[str]) -> None:
    keys = [f"/{key}" for key in keys]
    seen, told, _ = _ordered(keys)
    assert sorted(seen) == sorted(set(keys))
    falls = sum(later.encode() < sooner.encode() for sooner, later in itertools.pairwise(seen))
    assert falls <= len(told) <= 1


def test_each_file_meets_what_is_known_of_it() -> None:
    ledger = Ledger([_row("a", "1"), _row("a", "2"), _row("b"), _row("d")])
    sightings = list(merge_join(iter([_file("a"), _file("c"), _file("d")]), ledger))
    assert sightings == [
        Sighting(_file("a"), (_row("a", "1"), _row("a", "2"))),
        Sighting(_file("c"), ()),
        Sighting(_file("d"), (_row("d"),)),
    ]
    assert len(ledger.reads) == 1


def test_an_empty_listing_and_an_empty_ledger() -> None:
    assert list(merge_join(iter([]), Ledger([]))) == []
    assert list(merge_join(iter([_file("a")]), Ledger([]))) == [Sighting(_file("a"), ())]


def test_the_ledger_is_read_from_the_first_key_on_not_from_its_beginning() -> None:
    ledger = Ledger(_ledger(*(f"a{n:05}" for n in range(1000)), "b"))
    list(merge_join(iter([_file("b")]), ledger))
    assert ledger.pulled == 1


def test_after_a_disorder_the_ledger_is_read_again() -> None:
    ledger = Ledger(_ledger("a", "b", "c", "d"))
    sightings = list(merge_join(iter([_file("c"), _file("d"), _file("a"), _file("b")]), ledger))
    assert all(sighting.known for sighting in sightings)
    assert len(ledger.reads) == 2


def test_a_ledger_in_another_order_is_refused() -> None:
    rows = [_row("a"), _row("\U0001f600"), _row("\uffee")]
    with pytest.raises(LedgerUnreadableError, match="sort"):
        list(merge_join(iter([_file("\U0001f600"), _file("\U0001f601")]), lambda _: iter(rows)))


@given(st.lists(st.text(max_size=3)), st.lists(st.text(max_size=3)))
def test_the_join_finds_what_a_dictionary_finds(listed: list[str], loaded: list[str]) -> None:
    ledger = Ledger(_ledger(*dict.fromkeys(loaded)))
    files = in_key_order(iter([_file(f"{key}") for key in listed if key]), MemorySorter(), lambda _: None)
    known = {sighting.file.key: bool(sighting.known) for sighting in merge_join(files, ledger)}
    assert known == {key: key in set(loaded) for key in listed if key}


@given(st.text(min_size=1), st.text(min_size=1))
def test_just_before_is_below_its_key(key: str, other: str) -> None:
    before = just_before(key).encode()
    assert before < key.encode()
    # Nothing of the same length and beginning lies between the two.
    sibling = key[:-1] + other[0]
    assert not before < sibling.encode() < key.encode()


def test_neither_side_is_read_ahead() -> None:
    total, seen = 200_000, 0
    listed = 0

    def listing() -> Iterator[SourceFile]:
        nonlocal listed
        for number in range(total):
            listed += 1
            yield _file(f"s3://b/{number:07}")

    class Rows(Ledger):
        def __call__(self, after_key: str) -> Iterator[LedgerFile]:
            self.reads.append(after_key)
            for number in range(0, total, 2):
                self.pulled += 1
                yield _row(f"s3://b/{number:07}")

    rows, known = Rows([]), 0
    for sighting in merge_join(in_key_order(listing(), _Forgetful(), pytest.fail), rows):
        seen += 1
        known += len(sighting.known)
        assert listed == seen
        assert rows.pulled <= seen // 2 + 2
    assert (seen, known) == (total, total // 2)


class _Forgetful(MemorySorter):
    def remember(self, file: SourceFile) -> None:
        """Keep nothing, so that what the join itself holds shows."""


def test_a_shuffled_listing_is_joined_whole() -> None:
    keys = [f"k{number:04}" for number in range(500)]
    shuffled = keys.copy()
    random.Random(1).shuffle(shuffled)  # noqa: S311
    files = in_key_order(iter([_file(key) for key in shuffled]), MemorySorter(), lambda _: None)
    sightings = list(merge_join(files, Ledger(_ledger(*keys[::3]))))
    assert {sighting.file.key for sighting in sightings if sighting.known} == set(keys[::3])
    assert len(sightings) == 500
