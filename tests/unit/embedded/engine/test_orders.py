"""How work is divided among children, and divided again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.files import SourceFile
from app.engines.embedded.orders import (
    FILE_COST_BYTES,
    PART_BYTES,
    SMALL_BYTES,
    SPAN_BYTES,
    Part,
    divide,
    divide_and_cut,
    split,
)
from app.engines.embedded.spans import Span

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def file(name: str, size_bytes: int = 1000) -> SourceFile:
    return SourceFile(f"s3://b/{name}", "v", size_bytes, NOW)


def files(*sizes: int) -> list[SourceFile]:
    return [file(f"{i:06}", size) for i, size in enumerate(sizes)]


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=200), st.integers(1, 16), st.randoms())
def test_every_file_is_in_exactly_one_part_in_key_order(sizes: list[int], processes: int, random: object) -> None:
    given_files = files(*sizes)
    random.shuffle(given_files)  # type: ignore[attr-defined]

    parts = divide(given_files, processes=processes)

    assert [f.key for part in parts for f in part.files] == [f.key for f in files(*sizes)]
    assert all(part.files and not part.careful for part in parts)


def test_order_is_that_of_utf8_bytes() -> None:
    (part,) = divide([file("\ufb01"), file("\U0001f600"), file("z")], processes=4)

    assert [f.key[-1] for f in part.files] == ["z", "\ufb01", "\U0001f600"]


def test_a_little_work_is_for_one_child() -> None:
    assert len(divide(files(*[100] * 20), processes=8)) == 1
    assert len(divide(files(SMALL_BYTES, SMALL_BYTES), processes=2)) == 2


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_parts_cost_about_the_same(processes: int) -> None:
    parts = divide(files(*[1_000_000] * 1000), processes=processes)

    costs = [sum(f.size_bytes + FILE_COST_BYTES for f in part.files) for part in parts]
    assert len(parts) == max(processes, 4)
    assert max(costs) - min(costs) <= 2 * (1_000_000 + FILE_COST_BYTES)


def test_a_large_batch_makes_several_parts_a_child_but_not_hundreds() -> None:
    parts = divide(files(*[10_000_000] * 1000), processes=2)

    assert 2 * 4 < len(parts) <= 10_000_000 * 1000 // PART_BYTES + 2


def test_ten_thousand_tiny_files_are_shared() -> None:
    assert len(divide(files(*[10] * 10_000), processes=2)) == 2


def test_what_was_read_when_the_child_died_is_set_apart() -> None:
    part = Part(tuple(files(*[1] * 10)))

    assert split(part, (3, 5)) == (Part(part.files[3:5]), Part(part.files[:3] + part.files[5:]))


@pytest.mark.parametrize("suspects", [None, (0, 10), (5, 5)])
def test_without_a_suspect_a_part_is_halved(suspects: tuple[int, int] | None) -> None:
    part = Part(tuple(files(*[1] * 10)))

    assert split(part, suspects) == (Part(part.files[:5]), Part(part.files[5:]))


def test_a_file_alone_is_tried_once_more_with_care() -> None:
    alone = Part((file("a"),))

    assert split(alone) == (Part(alone.files, careful=True),)
    assert split(Part(alone.files, careful=True)) == ()


@given(st.integers(1, 100), st.integers(0, 99), st.tuples(st.integers(0, 100), st.integers(0, 100)))
def test_splitting_comes_to_an_end_with_the_one_file_that_is_to_blame(
    count: int, culprit: int, suspects: tuple[int, int]
) -> None:
    all_files = files(*[1] * count)
    bad = all_files[culprit % count]
    waiting, loaded, failed = [Part(tuple(all_files))], list[SourceFile](), list[SourceFile]()
    for _ in range(10 * count + 10):
        if not waiting:
            break
        part = waiting.pop()
        if bad not in part.files:
            loaded.extend(part.files)
            continue
        start, stop = min(suspects), max(suspects)
        smaller = split(part, (start, stop))
        waiting.extend(smaller)
        if not smaller:
            failed.extend(part.files)

    assert waiting == []
    assert failed == [bad]
    assert sorted(f.key for f in loaded) == [f.key for f in all_files if f != bad]


MB = 1_000_000


def test_a_file_that_outweighs_the_others_is_cut_and_they_keep_their_order() -> None:
    small, big, later = file("a", 10 * MB), file("b", 2_000 * MB), file("c", 10 * MB)

    parts = divide_and_cut([later, big, small], processes=2)

    assert parts == (Part((big,), cuts=8), *divide([small], processes=2), *divide([later], processes=2))


@pytest.mark.parametrize(
    ("sizes", "processes"),
    [((2_000 * MB,), 1), ((100 * MB,), 2), ((1_000 * MB, 1_100 * MB), 2), ((300 * MB,) * 10, 2)],
)
def test_what_keeps_all_children_busy_as_it_is_is_not_cut(sizes: tuple[int, ...], processes: int) -> None:
    given_files = files(*sizes)

    assert divide_and_cut(given_files, processes=processes) == divide(given_files, processes=processes)


def test_spans_are_of_a_good_size_and_enough_for_all_children() -> None:
    (part,) = divide_and_cut(files(300 * MB), processes=4)
    assert part.cuts == 4
    (part,) = divide_and_cut(files(2_300 * MB), processes=2)
    assert part.cuts == 10
    (part,) = divide_and_cut(files(SPAN_BYTES * 3), processes=8)
    assert part.cuts == 3
    (part,) = divide_and_cut(files(100), processes=2, span_bytes=10)
    assert part.cuts == 2


def test_a_span_whose_child_died_is_tried_once_more_with_care() -> None:
    part = Part((file("a"),), span=Span(10, 20))

    assert split(part, (0, 1)) == (replace(part, careful=True),)
    assert split(replace(part, careful=True)) == ()
