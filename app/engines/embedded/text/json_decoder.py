"""JSON files into tables: the fast road wherever its result is certain, the exact road everywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import pyarrow as pa

from app.domain.formats import FormatOptions
from app.domain.nesting import check_nesting, is_shallow
from app.domain.types import EMPTY, UNKNOWN, Struct, join_structs, without_unknown
from app.engines.embedded.decoding import Decoded, Excerpt
from app.engines.embedded.text.feed import TruncatedError
from app.engines.embedded.text.guess import guess_schema
from app.engines.embedded.text.json_fast import FastJson
from app.engines.embedded.text.json_records import JsonReader
from app.engines.embedded.text.observer import Observer
from app.engines.embedded.text.pieces import LOOK_BYTES, as_utf8, as_whole, check_encoding, growing, reblock
from app.engines.embedded.text.rows import Rows
from app.engines.embedded.text.settle import by_size, gather, settle

# Larger pieces are no faster, and what is made of one on the way to its rows is ten times its size.
PIECE_BYTES = 4 * 1024 * 1024
# Records of the exact road are Python objects, many times the size of their text: fewer of them at once.
EXACT_BYTES = LOOK_BYTES


class JsonDecoder:
    """Decodes JSON: a stream of objects in any layout, or one array of objects."""

    def __init__(self, options: FormatOptions, schema: Struct, *, fast: bool = True) -> None:
        """Prepare for a table's data columns; without `fast` everything takes the exact road.

        Raises:
            FileError: `format_options_invalid`.
        """
        self._options = options
        self._encoding = check_encoding(options.encoding)
        self._schema = schema
        self._empty = Rows(schema).take()
        self._fast = FastJson(schema) if fast and FastJson.can_read(schema) else None
        self._allow_fast = fast
        # Sentences about what was observed so far, each once.
        self.warnings: tuple[str, ...] = ()

    def decode_group(self, files: Sequence[bytes]) -> Decoded:
        """Decode whole small files together; see TextDecoder."""
        groups = ([as_whole(data, self._encoding) for data in group] for group in by_size(files))
        settled = (settle(texts, self._decode_fast, self._decode_exactly, self._empty) for texts in groups)
        return gather(chain.from_iterable(settled), self._empty)

    def _decode_fast(self, texts: list[bytes]) -> tuple[pa.Table, list[int]] | None:
        return None if self._fast is None else self._fast.decode(texts)

    def _decode_exactly(self, text: bytes) -> Iterator[pa.Table]:
        reader, rows = JsonReader(), Rows(self._schema)
        yield from _exact(reader, rows, text)
        yield from _exact(reader, rows, b"", last=True)

    def decode_stream(self, chunks: Iterable[bytes], excerpt: Excerpt | None = None) -> Iterator[pa.Table]:
        """Decode one large file, or an excerpt of one, piece by piece; see TextDecoder."""
        excerpt = excerpt or Excerpt()
        reader, rows = _reader(excerpt), Rows(self._schema)
        for piece in reblock(self._text(chunks, excerpt), PIECE_BYTES):
            if self._fast is not None and reader.between_records:
                decoded = self._fast.decode([piece])
                if decoded is not None:
                    reader.skip(piece)
                    yield decoded[0]
                    continue
            yield from _exact(reader, rows, piece)
        yield from _exact(reader, rows, b"", last=excerpt.to_end, flush=True)
        excerpt.next_line = reader.line if reader.between_records else None

    def _text(self, chunks: Iterable[bytes], excerpt: Excerpt) -> Iterable[bytes]:
        return as_utf8(chunks, self._encoding) if excerpt.first_bytes is None else chunks

    def observe(self, chunks: Iterable[bytes], seen: Struct = EMPTY, excerpt: Excerpt | None = None) -> Struct:
        """The types that the schema cannot hold as they are; see TextDecoder.

        A part of a file that ends inside a record is read up to there, if a whole record comes before.
        """
        excerpt = excerpt or Excerpt()
        observer = Observer(
            self._schema,
            infer_timestamps=self._options.infer_timestamps,
            max_columns=self._options.max_columns,
        )
        try:
            self._observe(self._text(chunks, excerpt), observer, seen, excerpt)
        finally:
            self.warnings = tuple(dict.fromkeys((*self.warnings, *observer.warnings)))
        return _within_limits(observer.observed)

    def _observe(self, chunks: Iterable[bytes], observer: Observer, before: Struct, excerpt: Excerpt) -> None:
        reader = _reader(excerpt)
        guess = self._guess(before) if before.fields else None
        seen = False
        for piece in growing(chunks):
            if guess is not None and reader.between_records and guess.holds(piece):
                reader.skip(piece)
                continue
            for record in reader.feed(piece):
                observer.add(record, reader.line)
                seen = True
            guess = self._guess(join_structs(before, observer.observed))
        try:
            for record in reader.feed(b"", last=excerpt.to_end, flush=True):
                observer.add(record, reader.line)
                seen = True
        except TruncatedError:
            if not seen:
                raise
        excerpt.next_line = reader.line if reader.between_records else None

    def _guess(self, observed: Struct) -> FastJson | None:
        if not self._allow_fast or not is_shallow(observed):
            return None
        schema = guess_schema(self._schema, observed)
        ignored = frozenset(f.name for f in observed.fields if f.type == UNKNOWN)
        return FastJson(schema, ignored=ignored) if FastJson.can_read(schema) else None


def _within_limits(observed: Struct) -> Struct:
    """What was observed, less what is deep and nothing but nulls.

    Told of a file and not of a record: what is deep in one record may be text in the next, and then all of it is text.

    Raises:
        FileError: No table can have a column that is so deep.
    """
    check_nesting(observed)
    if is_shallow(observed):
        return observed
    known = without_unknown(observed)
    return known if isinstance(known, Struct) else EMPTY


def _reader(excerpt: Excerpt) -> JsonReader:
    return JsonReader(line=excerpt.line, begun=excerpt.first_bytes is not None)


def _exact(
    reader: JsonReader, rows: Rows, piece: bytes, *, last: bool = False, flush: bool = False
) -> Iterator[pa.Table]:
    """Yield tables of the records that end in `piece`, before the error if there is one."""
    for start in range(0, max(1, len(piece)), EXACT_BYTES):
        for record in reader.feed(piece[start : start + EXACT_BYTES], last=last, flush=flush):
            rows.add(record, reader.line)
        if rows.count:
            yield rows.take()
