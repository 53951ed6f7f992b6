"""Samples, what they amount to, and whether a bar was met. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

# Figures of one run, by name: wall_s, cpu_s, peak_mb, and whatever a command measured of itself.
Sample = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of some samples."""

    median: float
    least: float
    most: float
    runs: int


def spread(values: Sequence[float]) -> Spread:
    """What the samples amount to.

    Raises:
        ValueError: There is none.
    """
    if not values:
        raise ValueError("There is no sample.")
    return Spread(statistics.median(values), min(values), max(values), len(values))


class How(StrEnum):
    """What of two contenders' figures a bar is held against."""

    RATIO = "ratio"
    DIFFERENCE = "difference"
    VALUE = "value"


@dataclass(frozen=True)
class Bar:
    """What is asked of a contender.

    Args:
        work: In words, as the table shows it.
        subject: Whose figure.
        figure: Which one.
        limit: At most so much; at least, where `at_least` is set.
        against: Contenders to compare with; of several, the one with the lowest median counts. Empty for a VALUE.
        against_figure: Their figure, where it has another name.
    """

    work: str
    subject: str
    figure: str
    limit: float
    against: tuple[str, ...] = ()
    how: How = How.RATIO
    at_least: bool = False
    against_figure: str = ""


@dataclass(frozen=True)
class Verdict:
    """A bar, and what was measured. `reached` None: there is nothing to compare."""

    bar: Bar
    reached: float | None
    rival: str = ""
    # Least and most of the figure, run by run, where both sides ran equally often.
    least: float | None = None
    most: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the bar was met; None where that cannot be said."""
        if self.reached is None:
            return None
        return self.reached >= self.bar.limit if self.bar.at_least else self.reached <= self.bar.limit

    @property
    def missed_by(self) -> float:
        """How far from the bar, as a share of it: 0.25 is a quarter above (or below, where it is a least)."""
        if self.reached is None or self.is_met:
            return 0.0
        return abs(self.reached - self.bar.limit) / abs(self.bar.limit) if self.bar.limit else float("inf")


def judge(bar: Bar, samples: Mapping[str, Sequence[Sample]]) -> Verdict:
    """Hold a bar against the samples of one case, by contender."""
    mine = _values(samples, bar.subject, bar.figure)
    if not mine:
        return Verdict(bar, None)
    if bar.how is How.VALUE:
        return Verdict(bar, statistics.median(mine), "", min(mine), max(mine))
    figure = bar.against_figure or bar.figure
    rivals = {name: values for name in bar.against if (values := _values(samples, name, figure))}
    if not rivals:
        return Verdict(bar, None)
    rival = min(rivals, key=lambda name: statistics.median(rivals[name]))
    theirs = rivals[rival]
    pairs = [_compared(bar.how, a, b) for a, b in zip(mine, theirs, strict=False)] if len(mine) == len(theirs) else []
    reached = _compared(bar.how, statistics.median(mine), statistics.median(theirs))
    return Verdict(bar, reached, rival, min(pairs, default=None), max(pairs, default=None))


def _values(samples: Mapping[str, Sequence[Sample]], name: str, figure: str) -> list[float]:
    return [sample[figure] for sample in samples.get(name, ()) if figure in sample]


def _compared(how: How, a: float, b: float) -> float:
    if how is How.DIFFERENCE:
        return a - b
    return a / b if b else float("inf")
