"""The names of one folder, in the order of keys, however many there are."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.locations import escaped
from app.sources.names import in_order, is_folder, is_link, mark_of, name_in_key, name_of

NAMES = st.binary(min_size=1, max_size=6).map(lambda name: name.replace(b"\0", b"x").replace(b"/", b"\\"))
ENTRIES = st.lists(st.tuples(NAMES, st.booleans(), st.booleans()), unique_by=lambda entry: entry[0])


@given(ENTRIES, st.integers(1, 5))
def test_marks_sort_as_keys_do_and_give_back_what_they_are_made_of(
    entries: list[tuple[bytes, bool, bool]], most_names: int
) -> None:
    marks = (mark_of(name, is_folder=folder, is_link=link) for name, folder, link in entries)
    found = list(in_order(marks, most_names=most_names))
    by_key = sorted(entries, key=lambda entry: escaped(entry[0]).encode() + b"/" * entry[1])
    assert [(name_of(mark), is_folder(mark), is_link(mark)) for mark in found] == by_key
    assert [name_in_key(mark) for mark in found] == [escaped(name).encode() for name, _, _ in by_key]


@pytest.mark.parametrize("stop_after", [0, 1, 500])
def test_what_is_not_asked_for_leaves_nothing_open(stop_after: int) -> None:
    """A file that is left open is a warning, and warnings are errors."""
    marks = in_order((b"%04d" % n for n in reversed(range(1_000))), most_names=100)
    assert [next(marks) for _ in range(stop_after)] == [b"%04d" % n for n in range(stop_after)]
    del marks


def test_all_names_are_taken_before_the_first_is_given() -> None:
    """The folder is not kept open, and one that changes meanwhile does not matter."""
    taken = 0

    def names() -> Iterator[bytes]:
        nonlocal taken
        for number in range(250):
            taken += 1
            yield b"%d" % number

    in_order(names(), most_names=100)
    assert taken == 250


def test_memory_stays_flat() -> None:
    drawn = random.Random(1)  # noqa: S311
    tracemalloc.start()
    try:
        last, count = b"", 0
        for mark in in_order((b"%030d" % drawn.getrandbits(60) for _ in range(100_000)), most_names=5_000):
            assert mark >= last
            last, count = mark, count + 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 100_000
    # The names alone are six megabytes.
    assert peak < 4_000_000
