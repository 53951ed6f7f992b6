"""What a series of kills came to, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

# How far a run had come, in order.
STAGES = (
    "before the lease",
    "lease taken, nothing claimed",
    "claimed, the table not made yet",
    "claimed, no data file yet",
    "data files, no manifest yet",
    "manifest written, not in the table",
    "in the table, not in the ledger",
    "between batches, or at the end",
    "lease given back",
    "with another run at work",
    "a child process only",
)


@dataclass
class Figures:
    """Counts that add up."""

    counts: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, other: Figures) -> None:
        """Take in those of another series."""
        self.counts.update(other.counts)
        self.stages.update(other.stages)
        self.seconds += other.seconds

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return self.counts["kills"]

    def lines(self) -> list[str]:
        """A small table of all of it."""
        hits = [(f"  {stage}", self.stages[stage]) for stage in STAGES]
        rest = [(name, count) for name, count in sorted(self.counts.items()) if name != "kills"]
        rows = [("kills", self.kills), *hits, *rest, ("seconds of all worlds", round(self.seconds))]
        return [f"{name:<42}{count:>9,}" for name, count in rows]
