"""The rest of a listing is sorted on disk, whole, and nothing stays behind."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.domain.discovery import in_key_order
from app.domain.files import SourceFile
from app.sources.sorting import DiskSorter

MOMENT = datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)


def _file(key: str, number: int = 0) -> SourceFile:
    return SourceFile(key, f"v{number}", number, MOMENT + timedelta(seconds=number))


def _shuffled(count: int) -> list[SourceFile]:
    files = [_file(f"s3://b/{number:05}-é\n\\\U0001f600", number) for number in range(count)]
    random.Random(7).shuffle(files)  # noqa: S311
    return files


def test_many_runs_become_one_order(tmp_path: Path) -> None:
    files = _shuffled(1_000)
    sorter = DiskSorter(folder=tmp_path, run_files=64)
    assert list(sorter.sort(iter(files))) == sorted(files, key=lambda file: file.order)
    sorter.close()


def test_what_was_passed_on_does_not_come_again(tmp_path: Path) -> None:
    sorter = DiskSorter(folder=tmp_path, run_files=2)
    for key in ("b", "d", "e"):
        sorter.remember(key)
    assert [file.key for file in sorter.sort(iter(map(_file, "cebaac")))] == ["a", "c"]
    sorter.close()


def test_the_first_sight_of_a_key_counts_across_runs(tmp_path: Path) -> None:
    sorter = DiskSorter(folder=tmp_path, run_files=2)
    rest = [_file("x", 1), _file("a", 2), _file("x", 3), _file("b", 4), _file("x", 5)]
    assert list(sorter.sort(iter(rest))) == [rest[1], rest[3], rest[0]]
    sorter.close()


def test_a_small_listing_leaves_the_disk_alone(tmp_path: Path) -> None:
    sorter = DiskSorter(folder=tmp_path)
    files = _shuffled(100)
    assert len(list(in_key_order(iter(files), sorter, lambda _: None))) == 100
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop_after", [0, 10, 400, 1_000])
def test_nothing_stays_on_disk(tmp_path: Path, stop_after: int) -> None:
    files = in_key_order(iter(_shuffled(1_000)), DiskSorter(folder=tmp_path, run_files=64), lambda _: None)
    for _ in range(stop_after):
        next(files)
    files.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_on_disk_when_the_listing_fails(tmp_path: Path) -> None:
    def listing() -> Iterator[SourceFile]:
        yield from _shuffled(300)
        raise ConnectionError

    files = in_key_order(listing(), DiskSorter(folder=tmp_path, run_files=64), lambda _: None)
    with pytest.raises(ConnectionError):
        list(files)
    assert list(tmp_path.iterdir()) == []


def test_what_was_read_goes_to_disk_run_by_run(tmp_path: Path) -> None:
    def listing() -> Iterator[SourceFile]:
        for number, file in enumerate(_shuffled(500)):
            # All but the run that is being gathered, and the one that is being written, is on disk.
            assert len(list(tmp_path.glob("*/run-*"))) >= number // 50 - 1
            yield file

    sorter = DiskSorter(folder=tmp_path, run_files=50)
    assert len(list(sorter.sort(listing()))) == 500
    sorter.close()


def test_what_was_passed_on_goes_to_disk_too(tmp_path: Path) -> None:
    sorter = DiskSorter(folder=tmp_path, run_files=50)
    for number in range(1_000):
        sorter.remember(f"{number:05}")
        assert len(sorter._passed) < 50
    assert list(sorter.sort(iter([_file("00007"), _file("00007a"), _file("00990")]))) == [_file("00007a")]
    sorter.close()


def test_strange_keys_that_were_passed_on_are_known_again(tmp_path: Path) -> None:
    keys = sorted(["a\nb", "a\0b", "a", "\\xff", "é", "\uffee", "\U0001f600", '"', ",", "]"])
    sorter = DiskSorter(folder=tmp_path, run_files=3)
    for key in keys:
        sorter.remember(key)
    again = [_file(key) for key in [*reversed(keys), "b"]]
    assert [file.key for file in sorter.sort(iter(again))] == ["b"]
    sorter.close()
