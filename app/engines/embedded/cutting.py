"""Looks where a large file can be cut, and loads the spans between the cuts, inside a child process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa

from app.domain.errors import FileError, FileFailure
from app.domain.files import SourceFile
from app.domain.formats import FileFormat, FormatOptions
from app.domain.ports import DataFile
from app.domain.system_columns import data_columns
from app.engines.embedded.codecs import HEAD_BYTES, detect
from app.engines.embedded.decoding import DriftError, Excerpt
from app.engines.embedded.encode import DataFileNames, DataFileWriter, TableShape
from app.engines.embedded.loading import write_alone
from app.engines.embedded.messages import Beat, CutJob, Cuts, Opened, Reads, SpanJob, Tell
from app.engines.embedded.parquet import ParquetSource, RowGroup, StoredFile
from app.engines.embedded.sampling import has_lines, head_only
from app.engines.embedded.spans import Span, SpanDone
from app.engines.embedded.stored import read_stored, stream_part
from app.engines.embedded.text import text_decoder
from app.engines.embedded.text.pieces import check_encoding

# What is looked at of a file's start: it tells how the rest is to be read.
LOOK_BYTES = 1024 * 1024
# A line longer than this is not worth a cut.
LINE_BYTES = 4 * 1024 * 1024
WINDOW_BYTES = 256 * 1024
REQUESTS = 8
# What the header of a CSV file is looked for in, piece by piece.
FIRST_BYTES = 64 * 1024


def carry_out(job: CutJob | SpanJob, tell: Tell) -> Cuts | SpanDone:
    """Do either; see `cut` and `load`."""
    return cut(job, tell) if isinstance(job, CutJob) else load(job, tell)


def cut(job: CutJob, tell: Tell) -> Cuts:
    """Where the job's file can be cut; nowhere also when it cannot be read: whoever loads it finds out why."""
    tell(Reads(0, 1))
    try:
        if job.reading.options.format is FileFormat.PARQUET:
            return _between_row_groups(job)
        return _between_lines(job)
    except FileError:
        return Cuts()


def _between_row_groups(job: CutJob) -> Cuts:
    source = ParquetSource(StoredFile(job.reading.reader, job.file))
    if sum(group.rows for group in source.groups) != source.rows:
        # It is damaged, which only shows when all of it is read.
        return Cuts()
    return Cuts(share_groups(source.groups, job.count), counted=True)


def share_groups(groups: tuple[RowGroup, ...], count: int) -> tuple[int, ...]:
    """Where runs of row groups begin, the first one left out: at most `count` runs that cost about the same."""
    total = sum(group.decoded_bytes for group in groups)
    starts: list[int] = []
    spent = 0
    for place, group in enumerate(groups):
        if place and spent + group.decoded_bytes / 2 > (len(starts) + 1) * total / count:
            starts.append(place)
        spent += group.decoded_bytes
    return tuple(starts)


def _between_lines(job: CutJob) -> Cuts:
    head = read_stored(job.reading.reader, job.file, 0, LOOK_BYTES)
    if not _has_lines(job, head):
        return Cuts()
    step = job.file.size_bytes // job.count
    wanted = [step * place for place in range(1, job.count)]
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="cuts") as executor:
        found = list(executor.map(partial(_line_behind, job), wanted))
    ends = (*wanted[1:], job.file.size_bytes)
    # Where a line is longer than a span, there are fewer.
    return Cuts(tuple(start for start, end in zip(found, ends, strict=True) if start is not None and start < end))


def _has_lines(job: CutJob, head: bytes) -> bool:
    """Whether the file that begins with `head` is text in which records end with lines."""
    options = job.reading.options
    if options.compression not in {"auto", "none"} or check_encoding(options.encoding) is not None:
        return False
    if options.compression == "auto" and detect(head[:HEAD_BYTES]) != "none":
        return False
    if options.format is FileFormat.JSON:
        return not head_only(head, options)
    # What stands behind an escape is not told by a look at its middle.
    return has_lines(head) and options.escape in {None, options.quote}


def _line_behind(job: CutJob, start: int) -> int | None:
    """Where the first record probably begins at `start` or behind it, unless it is far."""
    # From one byte before, as a newline may be there.
    place, window = start - 1, WINDOW_BYTES
    while window <= LINE_BYTES and place < job.file.size_bytes:
        part = read_stored(job.reading.reader, job.file, place, place + window)
        found = first_record(part, job.reading.options)
        if found is not None:
            return place + found
        window *= 2
    return None


def first_record(part: bytes, options: FormatOptions) -> int | None:
    """Where in a part of a file the first record begins behind a newline, as far as can be told; None: nowhere.

    Whether the part begins inside quotes is told by what stands beside its quotes: outside, it is a sign of the format.
    """
    quote = options.quote.encode() if options.format is FileFormat.CSV else b""
    pieces = part.split(quote) if quote else [part]
    signs = (options.delimiter.encode(), b"\n", b"\r")
    # Where nothing tells, quotes are rarer than none.
    first = next((first for first in (0, 1) if _fits(pieces, first, signs)), None)
    if first is None:
        return None
    place = 0
    for number, piece in enumerate(pieces):
        end = piece.find(b"\n") if number % 2 == first else -1
        if end >= 0:
            return place + end + 1
        place += len(piece) + len(quote)
    return None


def _fits(pieces: list[bytes], first: int, signs: tuple[bytes, ...]) -> bool:
    """Whether every second piece, from `first` on, may stand outside quotes."""
    last = len(pieces) - 1
    return all(
        not pieces[number]
        or ((number == 0 or pieces[number].startswith(signs)) and (number == last or pieces[number].endswith(signs)))
        for number in range(first, len(pieces), 2)
    )


def load(job: SpanJob, tell: Tell) -> SpanDone:
    """Load one span.

    Raises:
        WriteFailureError: The sink takes no files; what this job wrote may still be there.
        MemoryError: The process may not have so much.
    """
    tell(Reads(0, 1))
    return _SpanLoading(job, tell).run()


class _SpanLoading:
    def __init__(self, job: SpanJob, tell: Tell) -> None:
        (self._file,) = job.order.files
        self._order = job.order
        self._span = job.span
        self._tell = tell
        self._reader = job.order.reading.reader
        self._columns = data_columns(job.order.schema)
        self._names = DataFileNames(job.order.name_prefix, job.number)
        self._stored_bytes = 0

    def run(self) -> SpanDone:
        try:
            if self._order.reading.options.format is FileFormat.PARQUET:
                return self._row_groups()
            return self._lines()
        except FileError as error:
            failure = FileFailure.of(self._file.key, self._file.version, error)
            return SpanDone(failure=failure, stored_bytes=self._stored_bytes)

    def _beat(self, stored_bytes: int) -> None:
        self._stored_bytes += stored_bytes
        self._tell(Beat(stored_bytes=stored_bytes))

    def _write(
        self, tables: Iterator[pa.Table], repeating: frozenset[str] = frozenset()
    ) -> tuple[tuple[DataFile, ...], int]:
        shape = TableShape(self._order.schema, self._order.batch_id, repeating)
        writer = DataFileWriter(self._order.sink, shape.schema, self._names, lambda path: self._tell(Opened(path)))
        return write_alone(writer, shape, self._file, tables, self._beat)

    # --- text --------------------------------------------------------------------------------------------------

    def _lines(self) -> SpanDone:
        decoder = text_decoder(self._order.reading.options, self._columns)
        excerpt = self._excerpt()
        try:
            data_files, rows = self._write(decoder.decode_stream(self._stored(), excerpt))
        except DriftError:
            excerpt = self._excerpt()
            drift = decoder.observe(self._stored(), excerpt=excerpt)
            return SpanDone(drift=drift, next_line=excerpt.next_line, stored_bytes=self._stored_bytes)
        return SpanDone(data_files, rows, next_line=excerpt.next_line, stored_bytes=self._stored_bytes)

    def _excerpt(self) -> Excerpt:
        return Excerpt(
            self._first_bytes if self._span.start else None, self._span.line or 1, to_end=self._span.stop is None
        )

    def _first_bytes(self) -> Iterator[bytes]:
        for start in itertools.count(0, FIRST_BYTES):
            if start >= self._file.size_bytes:
                return
            yield read_stored(self._reader, self._file, start, start + FIRST_BYTES)

    def _stored(self) -> Iterator[bytes]:
        return stream_part(self._reader, self._file, self._span.start, self._span.stop, self._beat)

    # --- Parquet -----------------------------------------------------------------------------------------------

    def _row_groups(self) -> SpanDone:
        source = ParquetSource(StoredFile(self._reader, self._file))
        try:
            source.check_drift(self._columns)
        except DriftError:
            return SpanDone(drift=source.schema, next_line=1)
        repeating = source.repeating(self._columns)
        tables = source.tables(self._columns, repeating, self._span.start, self._span.stop)
        data_files, rows = self._write(tables, repeating)
        self._beat(_stored_share(self._file, source, self._span))
        return SpanDone(data_files, rows, next_line=1, stored_bytes=self._stored_bytes)


def _stored_share(file: SourceFile, source: ParquetSource, span: Span) -> int:
    """About how many of the file's bytes a span of row groups has."""
    sizes = [group.decoded_bytes for group in source.groups]
    return file.size_bytes * sum(sizes[span.start : span.stop]) // max(1, sum(sizes))
