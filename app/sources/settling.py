"""Files still being written are left until they are whole: until their size and time have stood still for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from app.domain.files import SourceFile

# So many files are looked at a second time together, so that a folder full of new files costs one moment and not many.
_TOGETHER = 1_000


def _ignore(_file: SourceFile) -> None:
    """What is told of a file that is left where nobody asks."""


class Sight(NamedTuple):
    """A file, by the path below the root on which it was met."""

    below: bytes
    file: SourceFile


@dataclass(frozen=True)
class Moment:
    """How long a file must stand still, and the clock that it is held against."""

    seconds: float
    now_s: Callable[[], float] = time.time
    pause: Callable[[float], None] = time.sleep
    # Told of each file that is left because it was still being written.
    left: Callable[[SourceFile], None] = _ignore

    def left_s(self, file: SourceFile, seconds: float | None = None) -> float:
        """Seconds that are missing; 0 for a file that has stood still for long enough.

        A file whose time lies ahead of the clock tells nothing by its age: for it the whole moment is missing.

        Args:
            file: As it was just seen.
            seconds: Another length than this moment's.
        """
        wanted = self.seconds if seconds is None else seconds
        age_s = self.now_s() - file.modified_at.timestamp()
        if age_s >= wanted:
            return 0.0
        return wanted if age_s < 0 else wanted - age_s


def whole_files(
    sights: Iterator[Sight], moment: Moment, look_again: Callable[[bytes], SourceFile | None]
) -> Iterator[SourceFile]:
    """Yield the files that stand still, in the order given; none waits for another one longer than a moment.

    A file that was written within the moment is looked at twice: it is left out when it is another one by then.

    Args:
        sights: The files, streaming.
        moment: How long they must stand still.
        look_again: The file at a path below the root as it is now.
    """
    for sight in sights:
        if moment.left_s(sight.file) <= 0:
            yield sight.file
            continue
        group = [sight, *islice(sights, _TOGETHER - 1)]
        lacking = [moment.left_s(one.file) for one in group]
        moment.pause(max(lacking))
        for one, left_s in zip(group, lacking, strict=True):
            now = one.file if left_s <= 0 else look_again(one.below)
            if now == one.file:
                yield now
            elif now is not None:
                moment.left(now)
