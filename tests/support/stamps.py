"""What a listing tells versions of a file apart by, on file systems whose clock is coarse too."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def stamp_of(path: Path) -> str:
    """Of a file of this machine."""
    seen = path.stat()
    return f"{seen.st_size}-{seen.st_mtime_ns}"


def put_anew(put: Callable[[], T], before: Collection[T]) -> T:
    """Put a version, again and again until its stamp, which `put` gives back, is none of those before.

    Within one tick of the clock two versions of one size are one to a listing.
    """
    stamp = put()
    while stamp in before:
        time.sleep(0.01)
        stamp = put()
    return stamp
