"""What a watch stands on: a lookout that sees what lands in a source, and the beat at which it looks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from app.domain.errors import UsageError
from app.domain.files import SourceFile

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
LEAST_BEAT_S = 0.1


class Lookout(Protocol):
    """Sees what lands in one source. What it overlooks, the next look at everything finds."""

    @property
    def hears(self) -> bool:
        """Whether it is told when something lands; if not, it has to be looked for on every beat."""
        ...

    @property
    def glances(self) -> bool:
        """Whether `landed` can find what is new without a look at everything."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or until something landed that can be taken; then True."""
        ...

    def everything(self) -> Iterator[SourceFile]:
        """Every matching file that is whole; streaming, raises as `Source.discover`."""
        ...

    def landed(self) -> Iterator[SourceFile] | None:
        """What may have landed since the last look; known files may be among it.

        Returns:
            The files, in key order; None where only a look at everything can tell.
        """
        ...

    def close(self) -> None:
        """Give back what it holds of the system. Idempotent."""
        ...


@dataclass(frozen=True)
class Beat:
    """When a watch looks. `every_s` is what the user chose.

    Where news comes by itself, a look at everything is a safety net and comes on every twelfth beat. It never takes
    more than a small share of the time: one that took long is followed by a pause that is so much longer.
    """

    every_s: float
    # A look at everything of one second is followed by so many seconds without one.
    rest: float = 20.0
    net_beats: int = 12

    def glance_in_s(self, took_s: float) -> float:
        """How long after a look that took `took_s` the next one comes, where nothing is heard."""
        return max(self.every_s, took_s)

    def everything_in_s(self, took_s: float, *, hears: bool) -> float:
        """How long after a look at everything that took `took_s` the next one comes."""
        return max(self.every_s * (self.net_beats if hears else 1), took_s * self.rest)


def parse_duration(text: str) -> float:
    """Seconds of what a user writes, such as `5s`, `500ms`, `2m`, `1h`, or a number of seconds.

    Raises:
        UsageError: It is no duration, or one that is too short.
    """
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if seconds < LEAST_BEAT_S:
        raise UsageError(f"{text!r} is no time to wait.", remedy="Write 5s, 500ms, 2m or 1h; 100ms is the least.")
    return seconds
