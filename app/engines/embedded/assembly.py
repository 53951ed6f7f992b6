"""Brings the files of an order that are cut to an end: one result for each, out of what became of its spans."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from app.domain.errors import FileFailure
from app.domain.files import SourceFile
from app.domain.ports import WriteOrder, WriteResult
from app.engines.embedded.messages import Beat, Cuts, Done
from app.engines.embedded.orders import Part
from app.engines.embedded.spans import Span, SpanDone, conclude, spans_of


class Ground(Protocol):
    """What the assembly of a file does to the call that it belongs to."""

    def advance(self, beat: Beat) -> None:
        """Tell what was done."""
        ...

    def discard(self, paths: Sequence[str], *, stored_bytes: int = 0) -> None:
        """Remove data files that do not count."""
        ...


class Assembly:
    """The files of one order that are cut. Called by several threads."""

    def __init__(self, order: WriteOrder, *, at_once: int) -> None:
        """Know of no file yet.

        Args:
            order: What they are loaded for.
            at_once: How many spans of a file are under way at a time, so that a file that turns out bad is left early.
        """
        self._order = order
        self._at_once = at_once
        self._files: dict[str, _CutFile] = {}
        self._lock = threading.Lock()

    @property
    def results(self) -> list[tuple[bytes, WriteResult]]:
        """What became of the files that were cut, each with its place in the order of files."""
        return [(file.order, file.result) for file in self._files.values() if file.result is not None]

    def follow(self, ground: Ground, part: Part, outcome: Done | FileFailure) -> Sequence[Part]:
        """What is to be done next, when a part is done or failed.

        Raises:
            WriteFailureError: Data files that do not count cannot be removed.
        """
        with self._lock:
            if isinstance(outcome, Cuts):
                return self._begin(part.files[0], outcome)
            if part.span is None:
                return ()
            return self._files[part.files[0].key].take(ground, part.span, outcome)

    def _begin(self, file: SourceFile, cuts: Cuts) -> Sequence[Part]:
        if not cuts.starts:
            return (Part((file,)),)
        made = self._files[file.key] = _CutFile(self._order, file, spans_of(cuts.starts, counted=cuts.counted))
        return made.begin(self._at_once)


class _CutFile:
    def __init__(self, order: WriteOrder, file: SourceFile, spans: Sequence[Span]) -> None:
        self._order = order
        self._file = file
        self._spans = list(spans)
        self._done: list[SpanDone | None] = [None] * len(spans)
        self._begun = 0
        self._under_way = 0
        self._is_over = False
        self._is_lost = False
        self.result: WriteResult | None = None

    @property
    def order(self) -> bytes:
        return self._file.order

    def begin(self, at_once: int) -> Sequence[Part]:
        return [self._next() for _ in range(min(at_once, len(self._spans)))]

    def _next(self) -> Part:
        span = self._spans[self._begun]
        self._begun += 1
        self._under_way += 1
        return Part((self._file,), span=span)

    def take(self, ground: Ground, span: Span, outcome: Done | FileFailure) -> Sequence[Part]:
        self._under_way -= 1
        if isinstance(outcome, SpanDone):
            self._done[self._spans.index(span)] = outcome
            self._is_over = self._is_over or outcome.failure is not None or not (span.stop is None or outcome.next_line)
        else:
            # Its child died of it: that is told already.
            self._is_over = self._is_lost = True
        if not self._is_over and self._begun < len(self._spans):
            return [self._next()]
        return () if self._under_way else self._conclude(ground)

    def _conclude(self, ground: Ground) -> Sequence[Part]:
        if self._is_lost:
            ground.discard([f.path for done in self._done if done is not None for f in done.data_files])
            self.result = WriteResult()
            return ()
        verdict = conclude(self._order, self._file, self._spans, self._done)
        if verdict.reread is None:
            ground.discard([f.path for f in verdict.discarded])
            self.result = verdict.result
            ground.advance(Beat(files=0 if verdict.result.drifted else 1, rows=verdict.rows))
            return ()
        place = next(i for i, span in enumerate(self._spans) if span.start == verdict.reread.start)
        again = sum(done.stored_bytes for done in self._done[place:] if done is not None)
        ground.discard([f.path for f in verdict.discarded], stored_bytes=again)
        self._spans[place:] = [verdict.reread]
        self._done[place:] = [None]
        self._begun = place
        return [self._next()]
