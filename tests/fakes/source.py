"""A source in memory. It works: files can be added, changed and taken away, and its reader keeps the port's promise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app.domain.errors import Category, FileError, SourceNotFoundError
from app.domain.files import SourceFile
from app.domain.locations import can_find_below, object_key, object_of_key
from app.domain.patterns import EVERYTHING, Pattern

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class MemoryReader:
    """Reads the files of a `MemorySource`; a copy that was pickled has the files as they were then."""

    files: dict[str, tuple[SourceFile, bytes]]

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        """The stored bytes from `start` to `end`, of exactly the version that was listed."""
        return self._content(file)[start:end]

    def stream(self, file: SourceFile, chunk_bytes: int) -> Iterator[bytes]:
        """The stored bytes in pieces; a change meanwhile raises at the end."""
        data = self._content(file)
        for start in range(0, len(data), chunk_bytes):
            yield data[start : start + chunk_bytes]
        self._content(file)

    def _content(self, file: SourceFile) -> bytes:
        now, data = self.files.get(file.key, (None, b""))
        if now is None or now.version != file.version:
            raise FileError(Category.PATH_NOT_FOUND, f"{file.key} was changed or is gone since it was listed.")
        return data


@dataclass
class MemorySource:
    """Files below `s3://<bucket>/`, listed in the order in which they were put."""

    bucket: str = "memory"
    folder: str = ""
    pattern: Pattern | None = None
    # The name of the file that makes its folder complete.
    marker: str | None = None
    files: dict[str, tuple[SourceFile, bytes]] = field(default_factory=dict)
    puts: int = 0

    @property
    def root(self) -> str:
        """URI of the folder below which every key lies."""
        return object_key("s3", self.bucket, self.folder).rstrip("/")

    def put(self, name: str, data: bytes) -> SourceFile:
        """Write a file; the same name again makes a new version of it. A name that ends in "/" is a folder marker."""
        self.puts += 1
        key = object_key("s3", self.bucket, name)
        file = SourceFile(key, f"v{self.puts}", len(data), BEGINNING + timedelta(seconds=self.puts))
        self.files[key] = (file, data)
        return file

    def delete(self, name: str) -> None:
        """Take a file away."""
        del self.files[object_key("s3", self.bucket, name)]

    def discover(self) -> Iterator[SourceFile]:
        """Yield the matching files, as the port says."""
        folder = self.folder.rstrip("/")
        named = [(object_of_key(key)[1], file) for key, (file, _) in self.files.items()]
        single = [file for name, file in named if folder and name == self.folder]
        below = [(name[len(folder) + 1 if folder else 0 :], file) for name, file in named if _is_in(name, folder)]
        if not single and not below and folder:
            raise SourceNotFoundError(f"There is nothing at s3://{self.bucket}/{folder}.")
        yield from (file for file in single if self._is_complete(file))
        pattern = self.pattern or EVERYTHING
        matching = (file for name, file in below if not name.endswith("/") and pattern.matches(name))
        yield from (file for file in matching if self._is_complete(file))

    def _is_complete(self, file: SourceFile) -> bool:
        folder, _, name = file.key.rpartition("/")
        return self.marker is None or (name != self.marker and f"{folder}/{self.marker}" in self.files)

    def can_find_below(self, folder: str) -> bool:
        """Whether it could find a file inside `folder`."""
        return can_find_below(self.root, self.pattern, folder)

    def reader(self) -> MemoryReader:
        """A reader of the files as they are at each moment."""
        return MemoryReader(self.files)


def _is_in(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")
