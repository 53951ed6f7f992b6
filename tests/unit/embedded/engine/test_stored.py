"""Small files are read ahead: in order, several at once, and within a bound of memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from app.domain.errors import Category, FileError
from app.domain.files import SourceFile
from app.engines.embedded import stored
from app.engines.embedded.stored import read_ahead


def files(count: int, size_bytes: int = 10) -> list[SourceFile]:
    return [SourceFile(f"s3://b/{n:05}", "v", size_bytes, datetime(2026, 1, 1, tzinfo=UTC)) for n in range(count)]


@dataclass
class Reader:
    """Gives a file's key; notes how much was given."""

    bad: frozenset[str] = frozenset()
    given: list[SourceFile] = field(default_factory=list)

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        assert (start, end) == (0, None)
        self.given.append(file)
        if file.key in self.bad:
            raise FileError(Category.PATH_NOT_FOUND, "gone")
        return file.key.encode()

    def stream(self, file: SourceFile, chunk_bytes: int) -> Iterator[bytes]:
        raise AssertionError((file, chunk_bytes))


@pytest.mark.parametrize("count", [0, 1, 3, 64, 1_000])
def test_each_file_comes_once_in_order_with_what_it_holds_or_why_not(count: int) -> None:
    wanted = files(count)
    bad = frozenset(file.key for file in wanted[1::7])
    found = list(read_ahead(Reader(bad), wanted, threads=4))
    assert [file for file, _ in found] == wanted
    for file, content in found:
        if file.key in bad:
            assert isinstance(content, FileError)
            assert content.category is Category.PATH_NOT_FOUND
        else:
            assert content == file.key.encode()


def test_a_reader_that_loses_its_connection_fails_the_file_alone() -> None:
    class Broken(Reader):
        def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
            if file.key.endswith("7"):
                raise ConnectionResetError("cut")
            return super().read(file, start, end)

    found = dict(read_ahead(Broken(), files(500), threads=4))
    broken = [content for content in found.values() if isinstance(content, FileError)]
    assert len(broken) == 50
    assert {error.category for error in broken} == {Category.CONNECTIVITY}


def test_few_files_are_fetched_at_once() -> None:
    """Where a store takes its time, one thread after the other would take it again and again."""
    together = threading.Barrier(8, timeout=30)

    class Waiting(Reader):
        def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
            together.wait()
            return super().read(file, start, end)

    assert len(list(read_ahead(Waiting(), files(8), threads=8))) == 8


def test_no_more_is_read_ahead_than_may_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "AHEAD_BYTES", 1_000)
    reader = Reader()
    for taken, _ in enumerate(read_ahead(reader, files(400, size_bytes=100), threads=2)):
        # What was taken, a run of it at most still in hand, and what may wait.
        assert len(reader.given) <= taken + 2 * stored.RUN_FILES + 10
