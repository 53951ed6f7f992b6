"""Local files as a source: a walk in key order, and reads that refuse a file that is not the one that was listed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from app.domain.errors import Category, FileError, SourceNotFoundError
from app.domain.files import SourceFile
from app.domain.locations import Location, can_find_below, escaped, file_key, path_of_key
from app.domain.patterns import EVERYTHING, Pattern
from app.sources.walk import DENIED, VANISHED, Entry, failure, joined, walk

MICROSECOND_NS = 1_000


class LocalSource:
    """A folder, or one file, of this machine."""

    def __init__(self, location: Location, pattern: Pattern | None = None) -> None:
        """Take the location's path; a name that looks like a pattern and exists has been told apart before.

        Args:
            location: Where to look; its own pattern is not looked at.
            pattern: What to look for below the path; None: everything that is not hidden.
        """
        self._given = os.fsencode(location.path)
        # The names of folders above are settled once, so that a key does not depend on how the folder was written.
        self._path = os.path.realpath(self._given)
        self._pattern = pattern

    @property
    def root(self) -> str:
        """Key form of the folder or file. Only what symbolic links lead to may lie elsewhere."""
        return file_key(self._path)

    def discover(self) -> Iterator[SourceFile]:
        """Yield the matching files, in key order but for what symbolic links lead to; streaming.

        Raises:
            SourceNotFoundError: There is nothing at the path.
            SourceAuthError: A folder may not be read: what is below it would be missing without a word.
            SourceUnreachableError: The system fails to read a folder, or what it says of a file.
        """
        try:
            status = os.stat(self._given)  # noqa: PTH116  # pathlib knows no names of bytes
        except OSError as error:
            if error.errno in VANISHED:
                raise SourceNotFoundError(f"There is nothing at {escaped(self._given)}.") from error
            raise failure(error, self._given) from error
        if stat.S_ISDIR(status.st_mode):
            yield from self._below()
        elif not stat.S_ISREG(status.st_mode):
            raise SourceNotFoundError(f"{escaped(self._given)} is neither a file nor a folder.")
        elif self._pattern is None or self._pattern.matches(os.fsdecode(self._path.rpartition(b"/")[2])):
            yield _source_file(self._path, status)

    def can_find_below(self, folder: str) -> bool:
        """Whether it could find a file inside `folder`, which has the form of a key."""
        return can_find_below(self.root, self._pattern, folder)

    def reader(self) -> LocalReader:
        """A reader of local files."""
        return LocalReader()

    def _below(self) -> Iterator[SourceFile]:
        pattern = self._pattern or EVERYTHING
        fixed = os.fsencode(pattern.fixed_folder)
        start = os.path.realpath(joined(self._path, fixed)) if fixed else self._path
        for entry in walk(start, fixed, lambda folder: pattern.can_match_below(os.fsdecode(folder))):
            if pattern.matches(os.fsdecode(entry.below)):
                file = _look(entry)
                if file is not None:
                    yield file


def _look(entry: Entry) -> SourceFile | None:
    """The file as it is now; None for what is no file: a pipe, a socket, a device, a link that leads nowhere."""
    try:
        path = os.path.realpath(entry.path) if entry.is_link else entry.path
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        if error.errno in VANISHED:
            return None
        raise failure(error, entry.path) from error
    return _source_file(path, status) if stat.S_ISREG(status.st_mode) else None


def _source_file(path: bytes, status: os.stat_result) -> SourceFile:
    modified_at = datetime.fromtimestamp(status.st_mtime_ns // 1_000_000_000, UTC).replace(
        microsecond=status.st_mtime_ns % 1_000_000_000 // MICROSECOND_NS
    )
    return SourceFile(file_key(path), _version(status), status.st_size, modified_at)


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


@dataclass(frozen=True)
class LocalReader:
    """Reads local files, of exactly the version that was listed."""

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        """The stored bytes from `start` to `end` (excluded; None: to the end of the file).

        Raises:
            FileError: The file is gone or has another version by now, or cannot be read.
        """
        end = file.size_bytes if end is None else min(end, file.size_bytes)
        with _opened(file) as handle:
            data = b"".join(_pieces(file, handle, start, end, max(end - start, 1)))
            _assert_same(file, handle)
        return data

    def stream(self, file: SourceFile, chunk_bytes: int) -> Iterator[bytes]:
        """The stored bytes in order, in pieces of about `chunk_bytes`.

        Raises:
            FileError: As `read`; a change meanwhile shows at the latest at the end, and voids what was given before.
        """
        with _opened(file) as handle:
            yield from _pieces(file, handle, 0, file.size_bytes, chunk_bytes)
            _assert_same(file, handle)


@contextmanager
def _opened(file: SourceFile) -> Iterator[int]:
    handle = -1
    try:
        # Without O_NONBLOCK, a pipe that took the file's name would hold the reader for ever.
        handle = os.open(path_of_key(file.key), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        _assert_same(file, handle)
        yield handle
    except OSError as error:
        raise _file_error(file, error) from error
    finally:
        if handle >= 0:
            os.close(handle)


def _pieces(file: SourceFile, handle: int, start: int, end: int, chunk_bytes: int) -> Iterator[bytes]:
    while start < end:
        piece = os.pread(handle, min(chunk_bytes, end - start), start)
        if not piece:
            raise _changed(file)
        start += len(piece)
        yield piece


def _assert_same(file: SourceFile, handle: int) -> None:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or _version(status) != file.version:
        raise _changed(file)


def _file_error(file: SourceFile, error: OSError) -> FileError:
    if error.errno in VANISHED:
        return _changed(file)
    reason = error.strerror or str(error)
    if error.errno in DENIED:
        return FileError(Category.AUTH, f"{file.key} may not be read: {reason}.")
    return FileError(Category.CONNECTIVITY, f"{file.key} cannot be read: {reason}.")


def _changed(file: SourceFile) -> FileError:
    return FileError(
        Category.PATH_NOT_FOUND,
        f"{file.key} was changed or is gone since it was listed; the next run takes up what is there then.",
    )
