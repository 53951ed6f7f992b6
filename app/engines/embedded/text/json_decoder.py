"""JSON files into tables: the fast road wherever its result is certain, the exact road everywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from app.domain.errors import FileError
from app.domain.formats import FormatOptions
from app.domain.types import UNKNOWN, Struct
from app.engines.embedded.arrow_types import arrow_schema
from app.engines.embedded.decoding import Decoded, DriftError
from app.engines.embedded.text.guess import guess_schema
from app.engines.embedded.text.json_fast import FastJson
from app.engines.embedded.text.json_records import JsonReader, TruncatedError
from app.engines.embedded.text.observer import Observer
from app.engines.embedded.text.pieces import as_utf8, check_encoding, reblock
from app.engines.embedded.text.rows import Rows

PIECE_BYTES = 8 * 1024 * 1024
# Records of the exact road are Python objects, many times the size of their text: fewer of them at once.
EXACT_BYTES = 1024 * 1024
FIRST_LOOK_BYTES = 64 * 1024
GROUP_BYTES = 32 * 1024 * 1024
# A group that is not certain is parted so many ways before each part is tried again.
_PARTS = 8

Outcome = int | FileError | DriftError


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
        self._arrow = arrow_schema(schema)
        self._fast = FastJson(schema) if fast and FastJson.can_read(schema) else None
        self._allow_fast = fast
        self.warnings: tuple[str, ...] = ()

    def decode_group(self, files: Sequence[bytes]) -> Decoded:
        """Decode whole small files together; see TextDecoder."""
        tables: list[pa.Table] = [self._arrow.empty_table()]
        rows: list[Outcome] = []
        for group in _by_size(files):
            texts = [self._text(data) for data in group]
            for table, outcome in self._settle(texts):
                tables.append(table)
                rows.extend(outcome)
        return Decoded(pa.concat_tables(tables), tuple(rows))

    def _text(self, data: bytes) -> bytes | FileError:
        try:
            return b"".join(as_utf8([data], self._encoding))
        except FileError as error:
            return error

    def _settle(self, texts: list[bytes | FileError]) -> Iterator[tuple[pa.Table, list[Outcome]]]:
        """Yield the rows of the texts, in order, as few tables as certainty allows."""
        good = [text for text in texts if isinstance(text, bytes)]
        if self._fast is not None and len(good) == len(texts):
            decoded = self._fast.decode(good)
            if decoded is not None:
                yield decoded[0], list(decoded[1])
                return
        if len(texts) == 1:
            yield self._settle_one(texts[0])
            return
        step = max(1, -(-len(texts) // _PARTS))
        if self._fast is None:
            step = 1
        for start in range(0, len(texts), step):
            yield from self._settle(texts[start : start + step])

    def _settle_one(self, text: bytes | FileError) -> tuple[pa.Table, list[Outcome]]:
        empty = self._arrow.empty_table()
        if isinstance(text, FileError):
            return empty, [text]
        try:
            table = pa.concat_tables([empty, *self._decode_exactly(text)])
        except (FileError, DriftError) as error:
            return empty, [error]
        return table, [table.num_rows]

    def _decode_exactly(self, text: bytes) -> Iterator[pa.Table]:
        reader, rows = JsonReader(), Rows(self._schema)
        yield from _exact(reader, rows, text)
        yield from _exact(reader, rows, b"", last=True)

    def decode_stream(self, chunks: Iterable[bytes]) -> Iterator[pa.Table]:
        """Decode one large file piece by piece; see TextDecoder."""
        reader, rows = JsonReader(), Rows(self._schema)
        for piece in reblock(as_utf8(chunks, self._encoding), PIECE_BYTES):
            if self._fast is not None and reader.between_records:
                decoded = self._fast.decode([piece])
                if decoded is not None:
                    reader.skip(piece)
                    yield decoded[0]
                    continue
            yield from _exact(reader, rows, piece)
        yield from _exact(reader, rows, b"", last=True)

    def observe(self, chunks: Iterable[bytes]) -> Struct:
        """The types that the schema cannot hold as they are; see TextDecoder.

        A part of a file that ends inside a record is read up to there, if a whole record comes before.
        """
        observer = Observer(
            self._schema,
            infer_timestamps=self._options.infer_timestamps,
            max_columns=self._options.max_columns,
        )
        try:
            self._observe(as_utf8(chunks, self._encoding), observer)
        finally:
            self.warnings = (*self.warnings, *observer.warnings)
        return observer.observed

    def _observe(self, chunks: Iterable[bytes], observer: Observer) -> None:
        reader = JsonReader()
        guess: FastJson | None = None
        seen = False
        size = FIRST_LOOK_BYTES
        for piece in _growing(chunks, size):
            if guess is not None and reader.between_records and guess.holds(piece):
                reader.skip(piece)
                continue
            for record in reader.feed(piece):
                observer.add(record, reader.line)
                seen = True
            guess = self._guess(observer.observed)
        try:
            for record in reader.feed(b"", last=True):
                observer.add(record, reader.line)
        except TruncatedError:
            if not seen:
                raise

    def _guess(self, observed: Struct) -> FastJson | None:
        if not self._allow_fast:
            return None
        schema = guess_schema(self._schema, observed)
        ignored = frozenset(f.name for f in observed.fields if f.type == UNKNOWN)
        return FastJson(schema, ignored=ignored) if FastJson.can_read(schema) else None


def _exact(reader: JsonReader, rows: Rows, piece: bytes, *, last: bool = False) -> Iterator[pa.Table]:
    """Yield tables of the records that end in `piece`, before the error if there is one."""
    for start in range(0, max(1, len(piece)), EXACT_BYTES):
        for record in reader.feed(piece[start : start + EXACT_BYTES], last=last):
            rows.add(record, reader.line)
        if rows.count:
            yield rows.take()


def _growing(chunks: Iterable[bytes], first_bytes: int) -> Iterator[bytes]:
    """Pieces of about a megabyte, the first one smaller: it shows the types, the others are held against them."""
    pieces = reblock(chunks, EXACT_BYTES)
    head = next(pieces, b"")
    cut = head.rfind(b"\n", 0, first_bytes) + 1 or head.find(b"\n") + 1
    if 0 < cut < len(head):
        yield head[:cut]
        head = head[cut:]
    yield head
    yield from pieces


def _by_size(files: Sequence[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    held = 0
    for data in files:
        if group and held + len(data) > GROUP_BYTES:
            yield group
            group, held = [], 0
        group.append(data)
        held += len(data)
    if group:
        yield group
