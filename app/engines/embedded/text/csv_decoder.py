"""CSV files into tables: the fast road wherever its result is certain, the exact road everywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, groupby

import pyarrow as pa

from app.domain.errors import FileError
from app.domain.formats import FormatOptions
from app.domain.types import EMPTY, UNKNOWN, Struct, join_structs
from app.engines.embedded.decoding import Decoded, Excerpt
from app.engines.embedded.text.csv_fast import FastCsv
from app.engines.embedded.text.csv_grammar import CsvGrammar
from app.engines.embedded.text.csv_head import CsvHead, CsvHeads
from app.engines.embedded.text.csv_records import CsvReader
from app.engines.embedded.text.csv_table import CsvTable
from app.engines.embedded.text.feed import TruncatedError
from app.engines.embedded.text.guess import guess_schema
from app.engines.embedded.text.observer import Observer
from app.engines.embedded.text.pieces import (
    LOOK_BYTES,
    as_utf8,
    as_whole,
    at_record_ends,
    check_encoding,
    growing,
    reblock,
)
from app.engines.embedded.text.rows import Rows
from app.engines.embedded.text.settle import Settled, by_size, gather, settle

# Larger pieces are no faster, and what is made of one on the way to its rows is ten times its size.
PIECE_BYTES = 4 * 1024 * 1024
_REMEMBERED = 200

Headed = tuple[CsvHead, bytes]


class CsvDecoder:
    """Decodes CSV: records of fields, quoted or plain, under a header or none."""

    def __init__(self, options: FormatOptions, schema: Struct, *, fast: bool = True) -> None:
        """Prepare for a table's data columns; without `fast` everything takes the exact road.

        Raises:
            FileError: `format_options_invalid`.
        """
        self._options = options
        self._encoding = check_encoding(options.encoding)
        self._grammar = CsvGrammar.of(options)
        self._schema = schema
        self._empty = Rows(schema).take()
        self._heads = CsvHeads(self._grammar)
        self._allow_fast = fast and self._grammar.is_plain
        self._fast: dict[tuple[str, ...], FastCsv] = {}
        self.warnings: tuple[str, ...] = ()

    def decode_group(self, files: Sequence[bytes]) -> Decoded:
        """Decode whole small files together; see TextDecoder."""
        settled = (self._settle([self._split(data) for data in group]) for group in by_size(files))
        return gather(chain.from_iterable(settled), self._empty)

    def _settle(self, items: list[Headed | FileError]) -> Iterator[Settled]:
        """Only files of one header can be read in one go."""
        for _, run in groupby(items, lambda item: None if isinstance(item, FileError) else item[0].names):
            yield from settle(list(run), self._decode_fast, self._decode_exactly, self._empty)

    def _split(self, data: bytes) -> Headed | FileError:
        text = as_whole(data, self._encoding)
        if isinstance(text, FileError):
            return text
        try:
            return self._heads.split(text)
        except FileError as error:
            return error

    def _decode_fast(self, items: list[Headed]) -> tuple[pa.Table, list[int]] | None:
        names = items[0][0].names
        if not names:
            return self._empty, [0] * len(items)
        fast = self._fast_for(names)
        return None if fast is None else fast.decode([body for _, body in items])

    def _fast_for(self, names: tuple[str, ...]) -> FastCsv | None:
        if not self._allow_fast:
            return None
        fast = self._fast.get(names)
        if fast is None:
            if len(self._fast) >= _REMEMBERED:
                self._fast.clear()
            fast = self._fast[names] = FastCsv(self._grammar, names, self._schema)
        return fast

    def _decode_exactly(self, item: Headed) -> Iterator[pa.Table]:
        head, body = item
        reader, rows = CsvReader(self._grammar, line=head.line), Rows(self._schema)
        table = CsvTable(self._grammar, head.names, self._schema)
        yield from _exact(reader, table, rows, body)
        yield from _exact(reader, table, rows, b"", last=True)

    def decode_stream(self, chunks: Iterable[bytes], excerpt: Excerpt | None = None) -> Iterator[pa.Table]:
        """Decode one large file, or an excerpt of one, piece by piece; see TextDecoder."""
        excerpt = excerpt or Excerpt()
        head, rest = self._begin(chunks, excerpt)
        if not head.names:
            return
        reader, rows = CsvReader(self._grammar, line=head.line), Rows(self._schema)
        table, fast = CsvTable(self._grammar, head.names, self._schema), self._fast_for(head.names)
        for piece in self._pieces(reblock(rest, PIECE_BYTES)):
            decoded = fast.decode([piece]) if fast is not None and _is_whole(reader, piece) else None
            if decoded is None:
                yield from _exact(reader, table, rows, piece)
            else:
                reader.skip(piece)
                yield decoded[0]
        yield from _exact(reader, table, rows, b"", last=excerpt.to_end, flush=True)
        excerpt.next_line = reader.line if reader.between_records else None

    def _begin(self, chunks: Iterable[bytes], excerpt: Excerpt) -> tuple[CsvHead, Iterator[bytes]]:
        """The file's head, as if it stood right before the records to be read; and their bytes."""
        if excerpt.first_bytes is None:
            return self._heads.read(as_utf8(chunks, self._encoding))
        head, _ = self._heads.read(as_utf8(excerpt.first_bytes(), self._encoding))
        return replace(head, line=excerpt.line), iter(chunks)

    def _pieces(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        return at_record_ends(pieces, self._grammar.quote.encode())

    def observe(self, chunks: Iterable[bytes], seen: Struct = EMPTY, excerpt: Excerpt | None = None) -> Struct:
        """The types that the schema cannot hold as they are; see TextDecoder.

        A part of a file must end at the end of a line. One that ends inside quotes is read up to there, if a whole
        record comes before.
        """
        options, excerpt = self._options, excerpt or Excerpt()
        observer = Observer(
            self._schema,
            infer_timestamps=options.infer_timestamps,
            max_columns=options.max_columns,
            all_text=True,
        )
        head, rest = self._begin(chunks, excerpt)
        if head.names:
            observer.add(dict.fromkeys(head.names), head.line)
            self._observe(head, rest, observer, seen, excerpt)
        self.warnings = tuple(dict.fromkeys((*self.warnings, *observer.warnings)))
        return observer.observed

    def _observe(
        self, head: CsvHead, rest: Iterable[bytes], observer: Observer, before: Struct, excerpt: Excerpt
    ) -> None:
        reader = CsvReader(self._grammar, line=head.line)
        table = CsvTable(self._grammar, head.names, self._schema)
        guess = self._guess(head.names, before) if before.fields else None
        seen = False
        for piece in self._pieces(growing(rest)):
            if guess is not None and _is_whole(reader, piece) and guess.holds(piece):
                reader.skip(piece)
                continue
            for record in table.records(reader, piece):
                observer.add(record, reader.line)
                seen = True
            guess = self._guess(head.names, join_structs(before, observer.observed))
        try:
            for record in table.records(reader, b"", last=excerpt.to_end, flush=True):
                observer.add(record, reader.line)
                seen = True
        except TruncatedError:
            if not seen:
                raise
        excerpt.next_line = reader.line if reader.between_records else None

    def _guess(self, names: tuple[str, ...], observed: Struct) -> FastCsv | None:
        if not self._allow_fast:
            return None
        ignored = frozenset(f.name for f in observed.fields if f.type == UNKNOWN)
        return FastCsv(self._grammar, names, guess_schema(self._schema, observed), ignored=ignored)


def _is_whole(reader: CsvReader, piece: bytes) -> bool:
    """Whether a piece begins and ends with records: what lacks its end of line may go on in the next piece."""
    return reader.between_records and piece.endswith(b"\n")


def _exact(
    reader: CsvReader, table: CsvTable, rows: Rows, piece: bytes, *, last: bool = False, flush: bool = False
) -> Iterator[pa.Table]:
    """Yield tables of the records that end in `piece`, before the error if there is one."""
    for start in range(0, max(1, len(piece)), LOOK_BYTES):
        for record in table.records(reader, piece[start : start + LOOK_BYTES], last=last, flush=flush):
            rows.add(record, reader.line)
        if rows.count:
            yield rows.take()
