"""Walk a folder in key order, level by level: a directory sorts as its name and "/", so that keys rise."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from app.domain.errors import AutoloaderError, SourceAuthError, SourceUnreachableError
from app.domain.locations import escaped, file_key
from app.sources.names import in_order, is_folder, is_link, mark_of, name_of

if TYPE_CHECKING:
    from app.sources.bounds import Bounds

# What the system says of a name that was there a moment ago, or that leads nowhere.
VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
# What is said of a link that is one no more when it is read.
_MEANWHILE = VANISHED | {errno.EINVAL}
DENIED = frozenset({errno.EACCES, errno.EPERM})


class Names(NamedTuple):
    """Consecutive names of files in one folder, as marks; `key` and `below` are the folder's, to be put before them."""

    path: bytes
    below: bytes
    key: str
    marks: Iterator[bytes]


class _Level:
    """A folder that the walk is in."""

    def __init__(self, path: bytes, below: bytes, marks: Iterator[bytes], chain: _Chain) -> None:
        self.path = path
        self.below = below
        self.key = file_key(joined(path, b""))
        self.chain = chain
        self._marks = marks
        # The folder that ended the last stretch of files.
        self._folder: bytes | None = None

    def files(self) -> Iterator[bytes]:
        """The marks of files up to the next folder."""
        for mark in self._marks:
            last = mark[-1:]
            if last == b"/" or (last == b"\0" and is_folder(mark)):
                self._folder = mark
                return
            yield mark

    def take_folder(self) -> bytes | None:
        """The folder at which `files` stopped; None at the end."""
        folder, self._folder = self._folder, None
        return folder


# Device and inode of a folder and those it was reached through: entering one of them again would never end.
_Chain: TypeAlias = tuple[tuple[int, int], ...]


def walk(start: bytes, below: bytes, enters: Callable[[bytes], bool], bounds: Bounds | None = None) -> Iterator[Names]:
    """Yield everything below `start` that is no folder, in key order; of the folders on the way, names alone are held.

    Links to folders are followed, but not into a folder that the walk is in already. What is below such a link has its
    real path, so it may break the order, and come twice where the folder itself is walked too.

    Args:
        start: The folder; one that is not there, or vanishes meanwhile, has no entries.
        below: What `start` itself is below the root; empty for the root.
        enters: Whether to look into a folder, by its path below the root.
        bounds: Where folders may lie; None: anywhere.

    Yields:
        Stretches of files. Each is to be read to its end before the next one is asked for.

    Raises:
        SourceAuthError: A folder may not be read.
        SourceUnreachableError: The system fails to read a folder.
        SourceNotAllowedError: A folder does not lie within the bounds.
    """
    levels = [_level(start, below, (), bounds)]
    while levels:
        level = levels[-1]
        yield Names(level.path, level.below, level.key, level.files())
        mark = level.take_folder()
        if mark is None:
            levels.pop()
            continue
        name = name_of(mark)
        folder_below = joined(level.below, name)
        if enters(folder_below):
            path = joined(level.path, name)
            # A file's key is its real path, by whichever link it was reached.
            real = real_path(path) if is_link(mark) else path
            if real is None:
                continue
            if bounds is not None:
                bounds.check(real, path)
            levels.append(_level(real, folder_below, level.chain, bounds))


def _level(folder: bytes, below: bytes, chain: _Chain, bounds: Bounds | None) -> _Level:
    try:
        with nullcontext(folder) if bounds is None else bounds.folder(folder) as path:
            status = os.stat(path)  # noqa: PTH116  # pathlib knows no names of bytes
            itself = (status.st_dev, status.st_ino)
            if itself in chain:
                return _Level(folder, below, iter(()), chain)
            with os.scandir(path) as listing:
                marks = in_order(map(_mark if bounds is None else partial(_mark, folder=folder), listing))
    except OSError as error:
        if error.errno in VANISHED:
            return _Level(folder, below, iter(()), chain)
        raise failure(error, folder) from error
    return _Level(folder, below, marks, (*chain, itself))


def _mark(entry: os.DirEntry[bytes], folder: bytes | None = None) -> bytes:
    """The mark of a name; `folder` is where it is said to be, where that is not how it was listed."""
    if entry.is_file(follow_symlinks=False):
        return mark_of(entry.name, is_folder=False, is_link=False)
    try:
        leads_into = entry.is_dir()
    except OSError as error:
        if error.errno not in VANISHED:
            # A link into a place that may not be seen: a folder of files, for all we know.
            raise failure(error, entry.path if folder is None else joined(folder, entry.name)) from error
        leads_into = False
    return mark_of(entry.name, is_folder=leads_into, is_link=entry.is_symlink())


def real_path(path: bytes) -> bytes | None:
    """Where a path leads; None where a link of it was removed or replaced at this very moment."""
    try:
        return os.path.realpath(path)
    except OSError as error:
        if error.errno in _MEANWHILE:
            return None
        raise failure(error, path) from error


def joined(folder: bytes, name: bytes) -> bytes:
    """The path of `name` in `folder`; an empty folder is the root of what is walked."""
    return folder + name if not folder or folder.endswith(b"/") else folder + b"/" + name


def failure(error: OSError, path: bytes) -> AutoloaderError:
    """Our error for what the system says of a folder or file of a source."""
    reason = error.strerror or str(error)
    if error.errno in DENIED:
        return SourceAuthError(
            f"{escaped(path)} may not be read: {reason}.",
            remedy="Give this user the right to read it, or leave it out.",
        )
    return SourceUnreachableError(
        f"{escaped(path)} cannot be read: {reason}.", remedy="Check the disk or the mount, then run again."
    )
