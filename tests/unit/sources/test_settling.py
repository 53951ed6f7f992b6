"""A file is taken when it stands still: looked at twice when it is young, at once when it is old."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.domain.files import SourceFile
from app.sources.factory import open_source
from app.sources.settling import Moment, Sight, whole_files

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Time that passes only in pauses."""

    def __init__(self) -> None:
        self.now_s = NOW.timestamp()
        self.pauses: list[float] = []
        self.left: list[SourceFile] = []

    def moment(self, seconds: float = 0.5) -> Moment:
        return Moment(seconds, lambda: self.now_s, self.pause, self.left.append)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds


def _file(name: str, age_s: float, version: str = "1") -> SourceFile:
    return SourceFile(f"file:///{name}", version, 1, NOW - timedelta(seconds=age_s))


def _taken(clock: Clock, files: list[SourceFile], later: dict[bytes, SourceFile | None] | None = None) -> list[str]:
    sights = [Sight(file.key.encode(), file) for file in files]
    now = {sight.below: sight.file for sight in sights} | (later or {})
    found = whole_files(iter(sights), clock.moment(), lambda below: now[below])
    return [file.key.removeprefix("file:///") for file in found]


def test_old_files_wait_for_nothing() -> None:
    clock = Clock()
    assert _taken(clock, [_file("a", 0.5), _file("b", 3600)]) == ["a", "b"]
    assert clock.pauses == []


def test_a_young_file_is_looked_at_twice_and_order_is_kept() -> None:
    clock = Clock()
    assert _taken(clock, [_file("a", 9), _file("b", 0.1), _file("c", 9)]) == ["a", "b", "c"]
    assert clock.pauses == [pytest.approx(0.4)]


def test_a_file_that_grows_or_goes_is_left() -> None:
    clock = Clock()
    grown, gone = _file("b", 0.0, version="2"), None
    files = [_file("a", 0.1), _file("b", 0.1), _file("c", 0.1)]
    assert _taken(clock, files, {b"file:///b": grown, b"file:///c": gone}) == ["a"]
    # Of one that is gone there is nothing to say.
    assert clock.left == [grown]


def test_a_time_ahead_of_the_clock_says_nothing_and_the_whole_moment_is_waited_for() -> None:
    clock = Clock()
    assert _taken(clock, [_file("a", -3600)]) == ["a"]
    assert clock.pauses == [0.5]


def test_many_young_files_cost_one_moment() -> None:
    clock = Clock()
    assert len(_taken(clock, [_file(f"{n:04d}", 0.1) for n in range(2500)])) == 2500
    assert sum(clock.pauses) < 1.0


def test_files_are_streamed() -> None:
    def endless() -> Iterator[Sight]:
        n = 0
        while True:
            n += 1
            yield Sight(b"", _file(f"{n}", 9))

    assert next(whole_files(endless(), Clock().moment(), lambda _: None)).key == "file:///1"


def test_a_folder_is_looked_at_with_the_moment_it_was_given(tmp_path: Path) -> None:
    """The file changes in the pause, as one that is being written does; the other one stands still."""
    for name in ("still.json", "growing.json"):
        (tmp_path / name).write_text("{}")
    os.utime(tmp_path / "still.json", (1, 1))
    pauses = []

    def write_on(seconds: float) -> None:
        pauses.append(seconds)
        with (tmp_path / "growing.json").open("a") as file:
            file.write("{}")

    moment = Moment(3600.0, pause=write_on)
    source = open_source(str(tmp_path), file_pattern=None, credentials=None, environ={}, moment=moment)
    assert [file.key.rpartition("/")[2] for file in source.discover()] == ["still.json"]
    assert len(pauses) == 1
    waits_for_marker = open_source(
        str(tmp_path), file_pattern=None, credentials=None, environ={}, moment=moment, complete_when="done"
    )
    (tmp_path / "done").touch()
    assert len(list(waits_for_marker.discover())) == 2
    assert len(pauses) == 1
