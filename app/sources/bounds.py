"""Holds local sources to the folders that they may lie in; what was opened is looked at again, by where it really is.

Between a look at a path and its opening, whoever may write there can put a link in the place of a folder. So what
counts is where the opened file or folder lies, as the kernel tells, and nothing of it is read before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.domain.errors import SourceNotAllowedError
from app.domain.locations import escaped
from app.domain.reach import Reach


@dataclass(frozen=True)
class Bounds:
    """The folders that a local source may lie in; picklable, so that readers in other processes hold them too."""

    reach: Reach

    def check(self, path: bytes, shown: bytes | None = None) -> None:
        """Let a path through that is real and lies within.

        Args:
            path: The real path.
            shown: The path by which it was come to.

        Raises:
            SourceNotAllowedError: It lies elsewhere. Whether there is anything, and what, is not told.
        """
        if not self.reach.has_path(path):
            raise SourceNotAllowedError(f"{escaped(shown or path)} is not in a folder that this service may read.")

    def holds(self, handle: int) -> bool:
        """Whether what is open lies within."""
        return self.reach.has_path(_real_path(handle))

    @contextmanager
    def folder(self, path: bytes) -> Iterator[bytes]:
        """A path to the folder that is really at `path`, which stays the same folder whatever becomes of its name.

        Raises:
            SourceNotAllowedError: It lies elsewhere by now.
            OSError: As the system says.
        """
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self.check(_real_path(handle), path)
            yield _own_path(handle)
        finally:
            os.close(handle)


def _own_path(handle: int) -> bytes:
    return b"/proc/self/fd/%d" % handle


def _real_path(handle: int) -> bytes:
    # Without /proc nothing can be told, and the error stops the load.
    return os.readlink(_own_path(handle))  # noqa: PTH115  # bytes
