"""The kernel's own news of folders (Linux inotify), by system calls: names as bytes, and a word when news were lost."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

CLOSE_WRITE = 0x0000_0008
MOVED_FROM = 0x0000_0040
MOVED_TO = 0x0000_0080
CREATE = 0x0000_0100
DELETE_SELF = 0x0000_0400
MOVE_SELF = 0x0000_0800
Q_OVERFLOW = 0x0000_4000
IGNORED = 0x0000_8000
ISDIR = 0x4000_0000

_ONLYDIR = 0x0100_0000
# Files that were deleted while they are open are of no interest.
_EXCL_UNLINK = 0x0400_0000
_WANTED = CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE_SELF | MOVE_SELF | _ONLYDIR | _EXCL_UNLINK
_HEADER = struct.Struct("iIII")
_READ_BYTES = 1 << 18

# The system lets this user have no more of them, or has no memory for them.
LIMITS = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSYS})


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened in the folder that `watch` is the number of, to the entry `name`; b"" is the folder itself."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """One queue of news."""

    def __init__(self) -> None:
        """Open the queue.

        Raises:
            OSError: The system gives none.
        """
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._checked(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def fileno(self) -> int:
        """The descriptor that can be read when there is news."""
        return self._handle

    def watch(self, folder: bytes) -> int:
        """Begin to watch a folder; again for the same folder: its number, and no change.

        Raises:
            OSError: It is no folder that may be read, or a limit is reached.
        """
        return self._checked(self._libc.inotify_add_watch(self._handle, folder, ctypes.c_uint32(_WANTED)))

    def forget(self, watch: int) -> None:
        """Watch a folder no longer; one that is gone is no error."""
        self._libc.inotify_rm_watch(self._handle, watch)

    def events(self) -> list[Event]:
        """The news so far, oldest first; does not wait."""
        try:
            data = os.read(self._handle, _READ_BYTES)
        except BlockingIOError:
            return []
        found, at = [], 0
        while at < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            found.append(Event(watch, mask, data[at : at + length].rstrip(b"\0")))
            at += length
        return found

    def close(self) -> None:
        """Close the queue. Idempotent."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
