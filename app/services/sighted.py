"""What a look has seen, as the source of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.domain.files import SourceFile
from app.domain.ports import Source, SourceReader


@dataclass(frozen=True)
class Sighted:
    """A source of which only certain files are listed: those that a look has found."""

    source: Source
    listing: Iterator[SourceFile]

    @property
    def root(self) -> str:
        """As the source's."""
        return self.source.root

    def discover(self) -> Iterator[SourceFile]:
        """The files that were found; once."""
        yield from self.listing

    def can_find_below(self, folder: str) -> bool:
        """As the source's."""
        return self.source.can_find_below(folder)

    def reader(self) -> SourceReader:
        """As the source's."""
        return self.source.reader()


class Timed:
    """Passes a listing on, and knows how long it took to get."""

    def __init__(self, listing: Iterator[SourceFile], clock: Callable[[], float]) -> None:
        self._listing = listing
        self._clock = clock
        self.took_s = 0.0

    def __iter__(self) -> Iterator[SourceFile]:
        return self

    def __next__(self) -> SourceFile:
        began = self._clock()
        try:
            return next(self._listing)
        finally:
            self.took_s += self._clock() - began
