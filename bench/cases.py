"""A case: contenders that do the same work, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import Contender
from bench.data import SPECS, DataSet, data_set, key_folder, read_through
from bench.figures import Bar
from bench.places import Places, Tree
from bench.store import Store


@dataclass
class Bench:
    """What cases are made from."""

    places: Places
    scale: float
    store: Store

    def data_set(self, name: str) -> DataSet:
        """A data set, made when it is missing, and read once."""
        if name not in SPECS:
            raise KeyError(name)
        found = data_set(self.places.data(self.scale), name, scale=self.scale)
        read_through(found.source)
        return found

    def keys(self, count: int) -> Path:
        """A folder of files that are only listed."""
        return key_folder(self.places.data(1), count)

    def scaled(self, count: int, *, least: int) -> int:
        """A number of things at this scale."""
        return max(least, round(count * self.scale))


# The product's own contenders, of one tree; the label tells trees apart.
MakeOurs = Callable[[Bench, Tree], list[Contender]]
MakeRivals = Callable[[Bench], list[Contender]]


def no_rivals(_bench: Bench) -> list[Contender]:
    """Nobody."""
    return []


@dataclass(frozen=True)
class Case:
    """Work that is measured.

    Args:
        name: What it is asked for by.
        title: What the tables call it.
        ours: Makes the product's contenders.
        rivals: Makes the others.
        bars: What is asked.
        runs: How often each contender is run.
        heavy: Only run when it is asked for by name.
        warm_up: Each contender runs once more, first, and that run does not count.
        note: A sentence below its table.
    """

    name: str
    title: str
    ours: MakeOurs
    rivals: MakeRivals = no_rivals
    bars: tuple[Bar, ...] = ()
    runs: int = 3
    heavy: bool = False
    warm_up: bool = False
    note: str = ""


def chosen(cases: Sequence[Case], names: str) -> list[Case]:
    """The cases of these names, in their own order: by default those that are not heavy; `all` for all.

    Raises:
        ValueError: A name is unknown.
    """
    wanted = names.replace(",", " ").split()
    if not wanted:
        return [case for case in cases if not case.heavy]
    if wanted == ["all"]:
        return list(cases)
    unknown = set(wanted) - {case.name for case in cases}
    if unknown:
        known = ", ".join(case.name for case in cases)
        raise ValueError(f"There is no case {', '.join(sorted(unknown))}. There are: {known}.")
    return [case for case in cases if case.name in wanted]
