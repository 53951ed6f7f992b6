"""Which snapshots of a table may go. Pure: the table's properties and its history in, ids out.

The properties are Iceberg's own, and one of ours beside them. A table on which none of them is set keeps everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

KEEP = "history.expire.min-snapshots-to-keep"
MAX_AGE_MS = "history.expire.max-snapshot-age-ms"
MOST = "autoloader.history.max-snapshots"
GC_ENABLED = "gc.enabled"

# Iceberg's own, where one of the two is set and the other is not.
DEFAULT_KEEP = 1
DEFAULT_MAX_AGE_MS = 5 * 24 * 3600 * 1000
# Each time costs a commit, so that it has to be worth one.
LEAST_GOING = 10

# What a table of ours begins with: a week of hourly loads, and never so many snapshots that commits become slow.
NEW_TABLE_HISTORY = {KEEP: "100", MAX_AGE_MS: str(7 * 24 * 3600 * 1000), MOST: "200"}


@dataclass(frozen=True)
class Retention:
    """What is to be kept of a branch.

    The newest `keep` snapshots always; of the others what is younger than `max_age_ms`. Where there are more than
    `most`, age does not count, and half as many are kept, or `keep` if that is more; None: as many as there are.
    """

    keep: int
    max_age_ms: int
    most: int | None = None


def retention(properties: Mapping[str, str]) -> Retention | None:
    """What a table's properties ask for; None where nothing may go, as where one of them is not understood."""
    if properties.get(GC_ENABLED, "true").lower() == "false" or not {KEEP, MAX_AGE_MS} & properties.keys():
        return None
    numbers = {name: properties[name] for name in (KEEP, MAX_AGE_MS, MOST) if name in properties}
    if not all(text.isascii() and text.isdecimal() for text in numbers.values()):
        return None
    most = int(numbers.get(MOST, 0))
    return Retention(
        max(1, int(numbers.get(KEEP, DEFAULT_KEEP))), int(numbers.get(MAX_AGE_MS, DEFAULT_MAX_AGE_MS)), most or None
    )


@dataclass(frozen=True, slots=True)
class PastSnapshot:
    """A snapshot as far as its going is concerned. `at_ms` is when it was made, by its maker's clock."""

    id: int
    parent_id: int | None
    at_ms: int


@dataclass(frozen=True, slots=True)
class PastRef:
    """A branch or a tag. What it says of its own history counts more than the table's properties."""

    snapshot_id: int
    is_branch: bool
    keep: int | None = None
    max_age_ms: int | None = None


@dataclass(frozen=True)
class History:
    """The snapshots that a table's metadata has, by id, and what names them; `main` is the current one."""

    snapshots: Mapping[int, PastSnapshot]
    main: int | None
    refs: tuple[PastRef, ...] = ()

    def going(self, wanted: Retention) -> tuple[int, ...]:
        """Ids of the snapshots that may go now, newest first; none where they are too few to be worth a commit.

        Only what the table itself once was goes: a snapshot that is no ancestor of the current one is somebody's
        staged work, or what a rollback left. What went is always the oldest part, so that of what is left no time is
        missing; but for tagged snapshots, which stay.
        """
        line = list(self._ancestors(self.main))
        cut = _cut(line, wanted)
        if wanted.most is not None and len(line) > wanted.most:
            cut = min(cut, max(wanted.keep, wanted.most // 2))
        named = self._named(wanted)
        going = tuple(s.id for s in line[cut:] if s.id not in named)
        return going if len(going) >= LEAST_GOING else ()

    def _named(self, wanted: Retention) -> set[int]:
        """What other branches and tags hold on to."""
        named = {ref.snapshot_id for ref in self.refs}
        for ref in self.refs:
            if ref.is_branch and ref.snapshot_id != self.main:
                line = list(self._ancestors(ref.snapshot_id))
                own = Retention(ref.keep or wanted.keep, ref.max_age_ms or wanted.max_age_ms)
                named.update(s.id for s in line[: _cut(line, own)])
        return named

    def _ancestors(self, snapshot_id: int | None) -> Iterator[PastSnapshot]:
        """A snapshot and what it was made from, as far as the metadata knows."""
        seen: set[int] = set()
        while snapshot_id is not None and snapshot_id not in seen and snapshot_id in self.snapshots:
            seen.add(snapshot_id)
            yield self.snapshots[snapshot_id]
            snapshot_id = self.snapshots[snapshot_id].parent_id


def _cut(line: list[PastSnapshot], wanted: Retention) -> int:
    """How many of a line of ancestors are kept for their place in it or their age, counted from its own newest."""
    oldest_ms = line[0].at_ms - wanted.max_age_ms if line else 0
    aged = (place for place, s in enumerate(line) if place >= wanted.keep and s.at_ms < oldest_ms)
    return next(aged, len(line))
