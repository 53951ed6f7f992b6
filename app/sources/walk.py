"""Walk a folder in key order, level by level: a directory sorts as its name and "/", so that keys rise."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.domain.errors import AutoloaderError, SourceAuthError, SourceUnreachableError
from app.domain.locations import escaped

# What the system says of a name that was there a moment ago, or that leads nowhere.
VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
DENIED = frozenset({errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder: `path` leads to it, `below` is its path below the start of the walk."""

    path: bytes
    below: bytes
    is_folder: bool
    is_link: bool


@dataclass(frozen=True, slots=True)
class _Level:
    entries: Iterator[Entry]
    # Device and inode of this folder and those it was reached through: entering one of them again would never end.
    chain: tuple[tuple[int, int], ...]


def walk(start: bytes, below: bytes, enters: Callable[[bytes], bool]) -> Iterator[Entry]:
    """Yield everything below `start` that is no folder, in key order; the entries of one folder a level are held.

    Links to folders are followed, but not into a folder that the walk is in already. What is below such a link has its
    real path, so it may break the order, and come twice where the folder itself is walked too.

    Args:
        start: The folder; one that is not there, or vanishes meanwhile, has no entries.
        below: What `start` itself is below the root; empty for the root.
        enters: Whether to look into a folder, by its path below the root.

    Raises:
        SourceAuthError: A folder may not be read.
        SourceUnreachableError: The system fails to read a folder.
    """
    levels = [_level(start, below, ())]
    while levels:
        entry = next(levels[-1].entries, None)
        if entry is None:
            levels.pop()
        elif not entry.is_folder:
            yield entry
        elif enters(entry.below):
            # A file's key is its real path, by whichever link it was reached.
            path = os.path.realpath(entry.path) if entry.is_link else entry.path
            levels.append(_level(path, entry.below, levels[-1].chain))


def _level(folder: bytes, below: bytes, chain: tuple[tuple[int, int], ...]) -> _Level:
    try:
        status = os.stat(folder)  # noqa: PTH116  # pathlib knows no names of bytes
        itself = (status.st_dev, status.st_ino)
        if itself in chain:
            return _Level(iter(()), chain)
        with os.scandir(folder) as listing:
            entries = [_entry(entry, below) for entry in listing]
    except OSError as error:
        if error.errno in VANISHED:
            return _Level(iter(()), chain)
        raise failure(error, folder) from error
    entries.sort(key=_order)
    return _Level(iter(entries), (*chain, itself))


def _entry(entry: os.DirEntry[bytes], below: bytes) -> Entry:
    try:
        is_folder = entry.is_dir()
    except OSError as error:
        if error.errno not in VANISHED:
            # A link into a place that may not be seen: a folder of files, for all we know.
            raise failure(error, entry.path) from error
        is_folder = False
    return Entry(entry.path, joined(below, entry.name), is_folder, entry.is_symlink())


def _order(entry: Entry) -> bytes:
    name = escaped(entry.path.rpartition(b"/")[2]).encode()
    return name + b"/" if entry.is_folder else name


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
