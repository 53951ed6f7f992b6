"""The listing and the ledger meet in key order, and neither is held."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.discovery import LedgerPage, Sighting, check_rising, in_key_order, just_before, merge_join, news
from app.domain.errors import LedgerUnreadableError
from app.domain.files import FileState, KnownVersion, SourceFile

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class MemorySorter:
    """Sorts in memory."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.closed = 0

    def remember(self, key: str) -> None:
        self.passed.add(key)

    def sort(self, rest: Iterator[SourceFile]) -> Iterator[SourceFile]:
        unique = {file.key: file for file in reversed(list(rest)) if file.key not in self.passed}
        yield from sorted(unique.values(), key=lambda file: file.order)

    def close(self) -> None:
        self.closed += 1


def _file(key: str, version: str = "1") -> SourceFile:
    return SourceFile(key, version, 1, MOMENT)


def _row(key: str, version: str = "1") -> KnownVersion:
    return KnownVersion(key, version, FileState.SUCCESS)


def _ledger(*keys: str) -> list[KnownVersion]:
    return sorted((_row(key) for key in keys), key=lambda row: row.key.encode())


class Ledger:
    """Rows in key order, which notes how it is read."""

    def __init__(self, rows: list[KnownVersion]) -> None:
        self.rows = rows
        self.reads: list[str] = []
        self.pulled = 0

    def __call__(self, after_key: str) -> Iterator[KnownVersion]:
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
        def __call__(self, after_key: str) -> Iterator[KnownVersion]:
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
    def remember(self, key: str) -> None:
        """Keep nothing, so that what the join itself holds shows."""


def test_a_shuffled_listing_is_joined_whole() -> None:
    keys = [f"k{number:04}" for number in range(500)]
    shuffled = keys.copy()
    random.Random(1).shuffle(shuffled)  # noqa: S311
    files = in_key_order(iter([_file(key) for key in shuffled]), MemorySorter(), lambda _: None)
    sightings = list(merge_join(files, Ledger(_ledger(*keys[::3]))))
    assert {sighting.file.key for sighting in sightings if sighting.known} == set(keys[::3])
    assert len(sightings) == 500


def test_a_listing_that_leaps_over_many_rows_does_not_read_them() -> None:
    ledger = Ledger(_ledger(*(f"{n:06d}" for n in range(100_000))))
    wanted = [f"{n:06d}" for n in (5, 6, 50_000, 50_001, 99_999)]
    found = list(merge_join(iter([_file(key) for key in wanted]), ledger))
    assert [(s.file.key, [row.key for row in s.known]) for s in found] == [(key, [key]) for key in wanted]
    assert ledger.pulled < 5_000
    assert len(ledger.reads) == 3


def test_a_leap_to_a_file_that_is_not_known() -> None:
    ledger = Ledger(_ledger(*(f"{n:06d}" for n in range(0, 20_000, 2))))
    keys = ["000001", "010001", "019998", "019999", "9"]
    found = [(s.file.key, len(s.known)) for s in merge_join(iter([_file(key) for key in keys]), ledger)]
    assert found == [("000001", 0), ("010001", 0), ("019998", 1), ("019999", 0), ("9", 0)]


# --- what is new ----------------------------------------------------------------------------------------------------


class Pages:
    """The same rows in pages of about so many, which notes where they are read from and how many are given."""

    def __init__(self, rows: list[KnownVersion], page_rows: int) -> None:
        self.rows = sorted(rows, key=lambda row: (row.key.encode(), row.version.encode()))
        self.page_rows = page_rows
        self.reads: list[str] = []
        self.given = 0

    def __call__(self, key: str) -> Iterator[LedgerPage]:
        self.reads.append(key)
        rest = [row for row in self.rows if row.key >= key]
        while rest:
            last = rest[: self.page_rows][-1].key
            page = [row for row in rest if row.key <= last]
            rest = rest[len(page) :]
            self.given += 1
            yield _page(page)


def _page(rows: list[KnownVersion]) -> LedgerPage:
    by_key = {row.key: tuple(r for r in rows if r.key == row.key) for row in rows}
    loaded = {row.key: row.version for row in rows if row.state is FileState.SUCCESS}
    sole = {key for key, known in by_key.items() if len(known) == 1 and key in loaded}
    return LedgerPage(rows[-1].key, loaded, {key: known for key, known in by_key.items() if key not in sole})


KEYS = st.text("abc\uffee\U0001f600", min_size=1, max_size=3)
VERSIONS = st.sampled_from(["1", "2", "3"])
ROWS = st.lists(
    st.builds(
        KnownVersion,
        KEYS,
        VERSIONS,
        st.sampled_from([FileState.SUCCESS, FileState.FAILED]),
        st.just(False),  # noqa: FBT003 - whether it may be tried again
        st.just(0),
        st.none(),
    ),
    unique_by=lambda row: (row.key, row.version),
)


@given(st.lists(st.builds(_file, KEYS, VERSIONS)), ROWS, st.integers(1, 5))
def test_news_are_what_the_join_finds_without_what_is_loaded(
    listed: list[SourceFile], rows: list[KnownVersion], page_rows: int
) -> None:
    def is_loaded(sighting: Sighting) -> bool:
        return any(k.version == sighting.file.version and k.state is FileState.SUCCESS for k in sighting.known)

    pages = Pages(rows, page_rows)
    joined = list(merge_join(iter(listed), lambda key: iter([row for row in pages.rows if row.key >= key])))
    left_out: list[SourceFile] = []
    found = list(news(iter(listed), pages, left_out.append))
    # Of a key with several loaded versions the page names one: the others come with what decides about them.
    assert [s for s in found if not is_loaded(s)] == [s for s in joined if not is_loaded(s)]
    assert sorted([*left_out, *(s.file for s in found)]) == sorted(s.file for s in joined)
    assert set(left_out) <= {s.file for s in joined if is_loaded(s)}


def test_what_is_loaded_is_told_and_not_given() -> None:
    pages = Pages(_ledger(*(f"{n:04}" for n in range(1_000))), 100)
    left_out: list[SourceFile] = []
    listed = [_file(f"{n:04}", "2" if n == 500 else "1") for n in range(1_001)]
    found = list(news(iter(listed), pages, left_out.append))
    assert found == [Sighting(listed[500], (_row("0500"),)), Sighting(listed[1_000], ())]
    assert len(left_out) == 999
    assert (len(pages.reads), pages.given) == (1, 10)


def test_a_leap_over_pages_reads_the_ledger_anew() -> None:
    pages = Pages(_ledger(*(f"{n:04}" for n in range(1_000))), 10)
    listed = [_file("0000"), _file("0900"), _file("0905"), _file("0010")]
    left_out: list[SourceFile] = []
    assert list(news(iter(listed), pages, left_out.append)) == []
    assert left_out == listed
    assert pages.given <= 6


def test_behind_the_ledger_s_end_it_is_not_asked_any_more() -> None:
    pages = Pages(_ledger("a"), 10)
    found = list(news(iter([_file("a"), *(_file(f"b{n}") for n in range(9))]), pages, lambda _: None))
    assert [(s.file.key, s.known) for s in found] == [(f"b{n}", ()) for n in range(9)]
    assert len(pages.reads) == 1
    # A key that falls is looked for all the same.
    left_out: list[SourceFile] = []
    assert [s.file.key for s in news(iter([_file("b"), _file("a")]), pages, left_out.append)] == ["b"]
    assert left_out == [_file("a")]


def test_news_do_not_read_the_listing_ahead() -> None:
    listed = 0

    def listing() -> Iterator[SourceFile]:
        nonlocal listed
        for number in range(1_000):
            listed += 1
            yield _file(f"{number:04}")

    pages = Pages(_ledger(*(f"{n:04}" for n in range(0, 1_000, 2))), 50)
    for sighting in news(in_key_order(listing(), _Forgetful(), pytest.fail), pages, lambda _: None):
        assert listed == int(sighting.file.key) + 1
        assert pages.given <= listed // 100 + 2


def test_keys_of_a_ledger_must_rise() -> None:
    check_rising(())
    check_rising(("a", "a", "b", "\uffee", "\U0001f600"))
    with pytest.raises(LedgerUnreadableError, match="sort"):
        check_rising(("a", "\U0001f600", "\uffee"))
