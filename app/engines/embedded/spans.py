"""Cuts a large file into spans that children load at the same time, and makes one outcome of theirs. Pure.

A span of text begins after a newline, and that this is the end of a record is a guess. The spans before it are the
proof: read from the file's start, each of them came to its end between two records. Where one did not, or holds an
error, whose line only the lines before it tell, the file is read from that span's start to its end in one go, just as
it would have been read without any cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.domain.errors import FileFailure
from app.domain.files import LoadedFile, SourceFile
from app.domain.ports import DataFile, WriteOrder, WriteResult
from app.domain.system_columns import data_columns
from app.domain.types import EMPTY, DataType, ListOf, MapOf, Struct, join_structs
from app.engines.embedded.drifting import drift_failure

# More keys than that make one text of an object, which is known only where all of its values are seen together.
MAX_JOINED_KEYS = 1_000


@dataclass(frozen=True)
class Span:
    """A part of a file: bytes of text at ends of lines, or row groups; `stop` is the first that is not in it.

    `line` is the number of the line at its start; None where the lines before it were not counted yet. In a file of
    row groups there is nothing to count.
    """

    start: int
    stop: int | None = None
    line: int | None = None

    @property
    def is_proven(self) -> bool:
        """Whether an error in it is the file's, told as it has to be."""
        return self.line is not None


@dataclass(frozen=True)
class SpanDone:
    """What became of a span. Its rows count only when the whole file's do.

    `failure` or `drift` is set where it was not loaded. `next_line` is the number of the line behind it, its own first
    one being `Span.line` or 1; None where it does not end between two records.
    """

    data_files: tuple[DataFile, ...] = ()
    rows: int = 0
    failure: FileFailure | None = None
    drift: Struct | None = None
    next_line: int | None = None
    stored_bytes: int = 0

    @property
    def is_loaded(self) -> bool:
        """Whether all its rows are in its data files."""
        return self.failure is None and self.drift is None


def spans_of(cuts: Sequence[int], *, counted: bool) -> tuple[Span, ...]:
    """The spans of a file that is cut there; `counted`: there are no lines to be counted first."""
    starts = (0, *cuts)
    stops = (*cuts, None)
    known = 1 if counted else None
    return tuple(Span(start, stop, 1 if not start else known) for start, stop in zip(starts, stops, strict=True))


@dataclass(frozen=True)
class Verdict:
    """What to do about a file when its spans are done: discard data files, then read on, or take the result."""

    discarded: tuple[DataFile, ...] = ()
    reread: Span | None = None
    result: WriteResult = field(default_factory=WriteResult)
    rows: int = 0


def conclude(order: WriteOrder, file: SourceFile, spans: Sequence[Span], done: Sequence[SpanDone | None]) -> Verdict:
    """What the spans of a file come to.

    Args:
        order: What the file is loaded for.
        file: The file.
        spans: All of its spans, in order.
        done: What became of each; None for those that were not begun after others went wrong.
    """
    line = 1
    for place, (span, outcome) in enumerate(zip(spans, done, strict=True)):
        is_last = span.stop is None
        if outcome is None or not outcome.is_loaded or not (is_last or outcome.next_line):
            return _stopped(order, file, spans, done, place, line)
        if outcome.next_line is not None:
            line = outcome.next_line if span.is_proven else line + outcome.next_line - 1
    outcomes = [outcome for outcome in done if outcome is not None]
    rows = sum(outcome.rows for outcome in outcomes)
    loaded = LoadedFile(file.key, file.version, rows, file.size_bytes)
    return Verdict(result=WriteResult(_data_files(outcomes), (loaded,)), rows=rows)


def _stopped(  # noqa: PLR0917 - the state of the walk
    order: WriteOrder,
    file: SourceFile,
    spans: Sequence[Span],
    done: Sequence[SpanDone | None],
    place: int,
    line: int,
) -> Verdict:
    """What they come to when the one at `place`, on `line`, is the first that was not loaded as it is."""
    all_files = _data_files([outcome for outcome in done if outcome is not None])
    outcome = done[place]
    if outcome is not None and outcome.failure is not None and spans[place].is_proven:
        return Verdict(all_files, result=WriteResult(failed=(outcome.failure,)))
    if outcome is not None and outcome.drift is not None and spans[place].is_proven and spans[place].stop is None:
        return Verdict(all_files, result=drifted(order, file, outcome.drift))
    drift = _joined_drift(order, spans, done)
    if drift is not None:
        return Verdict(all_files, result=drifted(order, file, drift))
    behind = _data_files([outcome for outcome in done[place:] if outcome is not None])
    return Verdict(behind, Span(spans[place].start, None, line))


def _joined_drift(order: WriteOrder, spans: Sequence[Span], done: Sequence[SpanDone | None]) -> Struct | None:
    """What the whole file needs, where every span tells its part of it for certain."""
    joined: Struct = EMPTY
    for span, outcome in zip(spans, done, strict=True):
        if outcome is None or outcome.failure is not None or not (span.stop is None or outcome.next_line):
            return None
        if outcome.drift is not None:
            joined = join_structs(joined, outcome.drift)
    columns = data_columns(order.schema)
    new = [f for f in joined.fields if columns.find(f.name) is None]
    if len(columns.fields) + len(new) > order.reading.options.max_columns:
        return None
    if any(_most_keys(f.type) > MAX_JOINED_KEYS for f in joined.fields):
        return None
    return joined if joined.fields else None


def _most_keys(kind: DataType) -> int:
    if isinstance(kind, Struct):
        return max((len(kind.fields), *(_most_keys(f.type) for f in kind.fields)))
    if isinstance(kind, ListOf):
        return _most_keys(kind.element)
    return _most_keys(kind.value) if isinstance(kind, MapOf) else 0


def drifted(order: WriteOrder, file: SourceFile, observed: Struct) -> WriteResult:
    """What becomes of a file that needs another schema."""
    failure = drift_failure(data_columns(order.schema), observed, report_drift=order.report_drift)
    if failure is not None:
        return WriteResult(failed=(FileFailure.of(file.key, file.version, failure),))
    return WriteResult(drifted=(file,), drift=observed)


def _data_files(outcomes: Sequence[SpanDone]) -> tuple[DataFile, ...]:
    return tuple(data_file for outcome in outcomes for data_file in outcome.data_files)
