"""Local files as a source: a walk in key order, and reads that refuse a file that is not the one that was listed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from app.domain.errors import Category, FileError, SourceNotFoundError
from app.domain.files import SourceFile
from app.domain.locations import Location, can_find_below, escaped, file_key, path_of_key
from app.domain.patterns import EVERYTHING, HIDDEN, Pattern
from app.sources.names import is_link, name_of
from app.sources.settling import Moment, Sight, whole_files
from app.sources.walk import DENIED, VANISHED, Names, failure, joined, real_path, walk

if TYPE_CHECKING:
    from app.sources.bounds import Bounds

MICROSECOND_NS = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HIDDEN = HIDDEN.encode()
# Files that are taken as they stand there.
AT_ONCE = Moment(0.0)


def _ignore(_folder: bytes) -> None:
    """What is told of the folders of a walk where nobody asks."""


class LocalSource:
    """A folder, or one file, of this machine."""

    def __init__(
        self,
        location: Location,
        pattern: Pattern | None = None,
        *,
        moment: Moment = AT_ONCE,
        complete_when: str | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """Take the location's path; a name that looks like a pattern and exists has been told apart before.

        Args:
            location: Where to look; its own pattern is not looked at.
            pattern: What to look for below the path; None: everything that is not hidden.
            moment: How long a file must stand still before it is taken.
            complete_when: The name of the file that tells that its folder is complete; then no moment is waited for.
            bounds: Where it may lie, and all that links in it lead to; None: anywhere.

        Raises:
            SourceNotAllowedError: It lies elsewhere.
        """
        self._bounds = bounds
        self._given = os.fsencode(location.path)
        # The names of folders above are settled once, so that a key does not depend on how the folder was written.
        self.path = real_path(self._given) or self._given
        if bounds is not None:
            bounds.check(self.path, self._given)
        self._pattern = pattern
        self.marker = None if complete_when is None else os.fsencode(complete_when)
        self.moment = moment if complete_when is None else AT_ONCE

    @property
    def root(self) -> str:
        """Key form of the folder or file. Only what symbolic links lead to may lie elsewhere."""
        return file_key(self.path)

    def discover(self) -> Iterator[SourceFile]:
        """Yield the matching files, in key order but for what symbolic links lead to; streaming.

        Raises:
            SourceNotFoundError: There is nothing at the path.
            SourceAuthError: A folder may not be read: what is below it would be missing without a word.
            SourceUnreachableError: The system fails to read a folder, or what it says of a file.
            SourceNotAllowedError: A link leads out of the bounds.
        """
        if self.moment.seconds > 0:
            yield from whole_files(self.sights(), self.moment, self.sight)
        else:
            yield from (sight.file for sight in self.sights())

    def sights(self, on_folder: Callable[[bytes], None] = _ignore) -> Iterator[Sight]:
        """Yield the matching files as they are met, whole or not; raises as `discover`.

        Args:
            on_folder: Told of each folder below the root (b"" for itself) right before it is read.
        """
        status = self._status()
        if stat.S_ISDIR(status.st_mode):
            fixed = os.fsencode((self._pattern or EVERYTHING).fixed_folder)
            parts = fixed.split(b"/") if fixed else []
            for depth in range(len(parts)):
                # Not read, but the folder below it may come and go.
                on_folder(b"/".join(parts[:depth]))
            yield from self.sights_below(fixed, on_folder)
        elif not stat.S_ISREG(status.st_mode):
            raise SourceNotFoundError(f"{escaped(self._given)} is neither a file nor a folder.")
        elif file := self.sight(b""):
            yield Sight(b"", file)

    def sights_below(self, folder: bytes, on_folder: Callable[[bytes], None] = _ignore) -> Iterator[Sight]:
        """The same for a folder below the root; nothing where it is gone."""

        def enters(below: bytes) -> bool:
            may = self.enters(below)
            if may:
                on_folder(below)
            return may

        start = real_path(joined(self.path, folder)) if folder else self.path
        if start is None or start in self._above(folder):
            return
        on_folder(folder)
        for names in walk(start, folder, enters, self._bounds):
            yield from self._looked_at(names)

    def _looked_at(self, names: Names) -> Iterator[Sight]:
        """The files of that name which are looked for. Here every file of a source comes by."""
        path, below = joined(names.path, b""), joined(names.below, b"") if names.below else b""
        plain = self._pattern is None and self.marker is None and EVERYTHING.matches(os.fsdecode(below + b"x"))
        for mark in names.marks:
            name = mark if b"\0" not in mark and b"\\" not in mark else name_of(mark)
            if plain:
                if name[0] in _HIDDEN:
                    continue
            elif not self.wants(below + name) or not self._is_complete(path + name):
                continue
            file = self._look(path + name) if is_link(mark) else _as_listed(path + name, names.key + mark.decode())
            if file is not None:
                yield Sight(below + name, file)

    def sight(self, below: bytes) -> SourceFile | None:
        """The file at a path below the root (b"": the root itself) as it is now; None for what is not looked for.

        Raises:
            SourceAuthError, SourceUnreachableError: The system does not say.
        """
        path = joined(self.path, below) if below else self.path
        if not (self.wants(below) if below else self._wants_itself()) or not self._is_complete(path):
            return None
        return self._look(path)

    def _look(self, path: bytes) -> SourceFile | None:
        """The file that the path leads to, by its real path, as it is now; None for what is no file.

        That is a pipe, a socket, a device, a link that leads nowhere.
        """
        real = real_path(path)
        if real is None:
            return None
        if self._bounds is not None:
            self._bounds.check(real, path)
        return _as_listed(real, file_key(real))

    def _wants_itself(self) -> bool:
        """Whether the root, when it is a file, is looked for: it was named, so also when its name is hidden."""
        name = self.path.rpartition(b"/")[2]
        return name != self.marker and (self._pattern is None or self._pattern.matches(os.fsdecode(name)))

    def wants(self, below: bytes) -> bool:
        """Whether a file at that path below the root is looked for."""
        is_marker = below.rpartition(b"/")[2] == self.marker
        return not is_marker and (self._pattern or EVERYTHING).matches(os.fsdecode(below))

    def enters(self, below: bytes) -> bool:
        """Whether a file in that folder below the root may be looked for."""
        return (self._pattern or EVERYTHING).can_match_below(os.fsdecode(below))

    def _above(self, folder: bytes) -> set[bytes | None]:
        """The real paths of the folders that the way to `folder` leads through: a link to one of them never ends."""
        parts = folder.split(b"/") if folder else []
        return {real_path(joined(self.path, b"/".join(parts[:depth]))) for depth in range(len(parts))}

    def _status(self) -> os.stat_result:
        try:
            return os.stat(self._given)  # noqa: PTH116  # pathlib knows no names of bytes
        except OSError as error:
            if error.errno in VANISHED:
                raise SourceNotFoundError(f"There is nothing at {escaped(self._given)}.") from error
            raise failure(error, self._given) from error

    def _is_complete(self, path: bytes) -> bool:
        """Whether the folder that the path lies in is complete; asked before the file is looked at, never after."""
        if self.marker is None:
            return True
        marker = joined(os.path.dirname(path), self.marker)  # noqa: PTH120
        if self._bounds is not None and not self._bounds.reach.has_path(real_path(marker) or b""):
            return False
        return os.path.isfile(marker)  # noqa: PTH113

    def can_find_below(self, folder: str) -> bool:
        """Whether it could find a file inside `folder`, which has the form of a key."""
        return can_find_below(self.root, self._pattern, folder)

    def reader(self) -> LocalReader:
        """A reader of local files."""
        return LocalReader(bounds=self._bounds)


def _as_listed(path: bytes, key: str) -> SourceFile | None:
    """The file at a path that is real, as it is now; None for what is no file."""
    try:
        # What took the place of the file meanwhile is not followed.
        status = os.lstat(path)
    except OSError as error:
        if error.errno in VANISHED:
            return None
        raise failure(error, path) from error
    if not stat.S_ISREG(status.st_mode):
        return None
    modified_at = _EPOCH + timedelta(microseconds=status.st_mtime_ns // MICROSECOND_NS)
    return SourceFile(key, _version(status), status.st_size, modified_at)


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


@dataclass(frozen=True)
class LocalReader:
    """Reads local files, of exactly the version that was listed, and where there are bounds, within them."""

    bounds: Bounds | None = field(default=None, kw_only=True)

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        """The stored bytes from `start` to `end` (excluded; None: to the end of the file).

        Raises:
            FileError: The file is gone or has another version by now, or cannot be read.
        """
        end = file.size_bytes if end is None else min(end, file.size_bytes)
        with self._opened(file) as handle:
            data = os.pread(handle, end - start, start) if start < end else b""
            if len(data) < end - start:
                # The system gives less than was asked for when it likes.
                data += b"".join(_pieces(file, handle, start + len(data), end, end - start))
            _assert_same(file, handle)
        return data

    def stream(self, file: SourceFile, chunk_bytes: int) -> Iterator[bytes]:
        """The stored bytes in order, in pieces of about `chunk_bytes`.

        Raises:
            FileError: As `read`; a change meanwhile shows at the latest at the end, and voids what was given before.
        """
        with self._opened(file) as handle:
            yield from _pieces(file, handle, 0, file.size_bytes, chunk_bytes)
            _assert_same(file, handle)

    @contextmanager
    def _opened(self, file: SourceFile) -> Iterator[int]:
        handle = -1
        try:
            # Without O_NONBLOCK, a pipe that took the file's name would hold the reader for ever.
            handle = os.open(path_of_key(file.key), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if self.bounds is not None and not self.bounds.holds(handle):
                raise FileError(Category.AUTH, f"{file.key} leads out of the folders that this service may read.")
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
