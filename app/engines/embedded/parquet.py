"""Reads Parquet files of the source, a row group at a time, into the table's columns."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.domain import system_columns
from app.domain.errors import Category, FileError
from app.domain.evolution import plan_changes
from app.domain.files import SourceFile
from app.domain.ports import SourceReader
from app.domain.types import STRING, DataType, Field, ListOf, MapOf, Struct
from app.engines.embedded.arrow_types import arrow_schema, domain_type
from app.engines.embedded.conversion import MisfitError, fit_struct
from app.engines.embedded.decoding import DriftError
from app.engines.embedded.drifting import check_changes
from app.engines.embedded.stored import read_stored

T = TypeVar("T")
MAGIC = b"PAR1"
ENCRYPTED_MAGIC = b"PARE"
BATCH_ROWS = 64 * 1024
# Like that of a JSON record; what a table takes is less.
MAX_DEPTH = 100
# What is fetched at least, because every request of an object store costs the same time as so many bytes.
BLOCK_BYTES = 256 * 1024
# A row group up to this many stored bytes is fetched by one request.
GROUP_FETCH_BYTES = 128 * 1024 * 1024
# Text takes four bytes a value and its own length; a place in a dictionary less than these.
_REPEATING_BYTES = 3


class StoredFile(io.RawIOBase):
    """A stored file as pyarrow reads one at random: each request is remembered until the next.

    `failure` keeps an error of the source, which would otherwise come back in Arrow's words.
    """

    def __init__(self, reader: SourceReader, file: SourceFile, whole: bytes | None = None) -> None:
        """Read nothing yet.

        Args:
            reader: Where from.
            file: The file, of the size that it was listed with.
            whole: All its bytes, where they are there already.
        """
        super().__init__()
        self._reader = reader
        self._file = file
        self._size = file.size_bytes if whole is None else len(whole)
        self._position = 0
        self._start = 0
        self._held = whole or b""
        self.failure: FileError | None = None

    def readable(self) -> bool:
        """Whether it can be read: it can."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read at any place: it can."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to where the next read begins."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """The next bytes; all that are left when `size` is below zero."""
        stop = self._size if size < 0 else min(self._position + size, self._size)
        data = self.at(self._position, stop)
        self._position += len(data)
        return data

    def at(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`."""
        if not self._start <= start <= stop <= self._start + len(self._held):
            self.fetch(start, max(stop, min(start + BLOCK_BYTES, self._size)))
        return self._held[start - self._start : stop - self._start]

    def fetch(self, start: int, stop: int) -> None:
        """Hold the bytes from `start` to `stop`, and no others."""
        try:
            self._held = read_stored(self._reader, self._file, start, stop)
        except FileError as error:
            self.failure = error
            raise
        self._start = start
        if len(self._held) != stop - start:
            self.failure = FileError(Category.CONNECTIVITY, "The source gave fewer bytes than the file has.")
            raise self.failure

    def size(self) -> int:
        """Of the whole file, in bytes."""
        return self._size


@dataclass(frozen=True)
class RowGroup:
    """What the footer says of a row group: its rows, and about how much memory they take."""

    rows: int
    decoded_bytes: int


class ParquetSource:
    """One Parquet file of the source."""

    def __init__(self, stored: StoredFile) -> None:
        """Read the footer.

        Raises:
            FileError: It is not a Parquet file, encrypted, or has columns that no table can have.
        """
        self._stored = stored
        _check_magic(stored)
        self._parquet = self._open()
        self._int96 = any(
            self._parquet.schema.column(i).physical_type == "INT96" for i in range(len(self._parquet.schema))
        )
        # Twice the same columns: with nanoseconds to see whether there are any, with microseconds for the range.
        self._nanos = self._open(int96_unit="ns") if self._int96 else None
        arrow = self._parquet.schema_arrow
        _check_depth(arrow)
        _check_types(arrow)
        self.schema = Struct(tuple(Field(f.name, domain_type(f.type)) for f in arrow))
        _check_names(self.schema)

    @property
    def rows(self) -> int:
        """How many rows the footer says there are."""
        return int(self._parquet.metadata.num_rows)

    @property
    def decoded_bytes(self) -> int:
        """About how much memory all its rows take, by the footer."""
        return sum(group.decoded_bytes for group in self.groups)

    def check_drift(self, schema: Struct) -> None:
        """Do nothing when every column fits `schema` by its name and needs no wider type.

        Raises:
            FileError: No change makes room for a column: it would be nested too deep, or its name is taken.
            DriftError: `schema` has to change first.
        """
        changes = plan_changes(schema, self.schema)
        check_changes(schema, changes, self.schema)
        if changes:
            raise DriftError("; ".join(map(str, changes)))

    def repeating(self, schema: Struct) -> frozenset[str]:
        """Columns of text in `schema` whose values this file stores once each: they can be taken over like that."""
        if self._int96:
            return frozenset()
        texts = {f.name for f in schema.fields if f.type == STRING and not f.required}
        return frozenset(
            field.name
            for place, field in self._leaves()
            if field.name in texts and field.type == pa.string() and self._is_repeating(place)
        )

    def _leaves(self) -> Iterator[tuple[int, pa.Field]]:
        """The columns at the top that hold no others, with their places among the stored ones."""
        names = {field.name: field for field in self._parquet.schema_arrow}
        for place in range(len(self._parquet.schema)):
            field = names.get(self._parquet.schema.column(place).path)
            if field is not None:
                yield place, field

    def _is_repeating(self, place: int) -> bool:
        metadata = self._parquet.metadata
        chunks = [metadata.row_group(i).column(place) for i in range(metadata.num_row_groups)]
        # A chunk can begin with a dictionary and give it up; then its values take at least their lengths.
        excess = sum(c.total_uncompressed_size - _REPEATING_BYTES * c.num_values for c in chunks)
        return excess <= 0 and all(c.has_dictionary_page for c in chunks)

    @property
    def groups(self) -> tuple[RowGroup, ...]:
        """The row groups, in order."""
        metadata = self._parquet.metadata
        found = (metadata.row_group(i) for i in range(metadata.num_row_groups))
        return tuple(RowGroup(group.num_rows, group.total_byte_size) for group in found)

    def tables(
        self, schema: Struct, repeating: frozenset[str] = frozenset(), start: int = 0, stop: int | None = None
    ) -> Iterator[pa.Table]:
        """Yield the rows in pieces, as the columns of `schema`.

        Args:
            schema: The table's data columns.
            repeating: Columns to give as dictionaries; of those that `repeating()` tells.
            start: The row group that the first row is taken from.
            stop: The first one after it that is left out; None: to the end.

        Raises:
            FileError: A value does not fit (`schema_mismatch`, with its row in the file), or the file is damaged.
        """
        fitting = Struct(tuple(f for f in schema.fields if f.name not in repeating))
        arrow = arrow_schema(schema)
        if repeating:
            self._parquet = self._open(read_dictionary=sorted(repeating))
        rows = [group.rows for group in self.groups]
        chosen = range(len(rows))[start:stop]
        first = row = sum(rows[:start])
        for batch in self._batches(chosen):
            try:
                fitted = iter(fit_struct(batch.drop_columns(sorted(repeating)).to_struct_array(), fitting))
            except MisfitError as error:
                raise _mismatch(error, row) from error
            columns = [batch.column(f.name) if f.name in repeating else next(fitted) for f in schema.fields]
            fields = [f.with_type(c.type) if f.name in repeating else f for f, c in zip(arrow, columns, strict=True)]
            table = pa.Table.from_arrays(columns, schema=pa.schema(fields)) if columns else _no_columns(batch.num_rows)
            row += batch.num_rows
            yield table
        promised = self.rows if len(chosen) == len(rows) else sum(rows[i] for i in chosen)
        if row - first != promised:
            raise FileError(
                Category.DATA_MALFORMED, f"The footer promises {promised:,} rows, {row - first:,} were found."
            )

    def _open(self, int96_unit: str = "us", read_dictionary: Sequence[str] = ()) -> pq.ParquetFile:
        return self._guarded(
            lambda: pq.ParquetFile(
                pa.PythonFile(self._stored, mode="r"),
                coerce_int96_timestamp_unit=int96_unit,
                read_dictionary=list(read_dictionary),
                page_checksum_verification=True,
                arrow_extensions_enabled=True,
            )
        )

    def _batches(self, groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
        for group in groups:
            self._guarded(partial(self._fetch, group))
            batches = self._iterate(self._parquet, group)
            if self._nanos is None:
                yield from batches
                continue
            seen = 0
            for batch, exact in zip(batches, self._iterate(self._nanos, group), strict=True):
                _check_nanoseconds(batch, exact)
                seen += batch.num_rows
                yield batch

    def _iterate(self, parquet: pq.ParquetFile, group: int) -> Iterator[pa.RecordBatch]:
        batches = self._guarded(lambda: parquet.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False))
        while (batch := self._guarded(lambda: next(batches, None))) is not None:
            yield batch

    def _fetch(self, group: int) -> None:
        metadata = self._parquet.metadata.row_group(group)
        columns = [metadata.column(i) for i in range(metadata.num_columns)]
        starts = [
            c.data_page_offset if not c.dictionary_page_offset else min(c.dictionary_page_offset, c.data_page_offset)
            for c in columns
        ]
        if not starts:
            return
        start, stop = min(starts), max(s + c.total_compressed_size for s, c in zip(starts, columns, strict=True))
        if 0 <= start < stop <= self._stored.size() and stop - start <= GROUP_FETCH_BYTES:
            # Touching both ends keeps what is held already where it covers the group.
            self._stored.at(start, stop)

    def _guarded(self, read: Callable[[], T]) -> T:
        """Call pyarrow; its errors become the file's."""
        try:
            return read()
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            if self._stored.failure is not None:
                raise self._stored.failure from error
            text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if "crypt" in text.lower():
                raise _encrypted() from error
            raise FileError(
                Category.DATA_MALFORMED, f"The Parquet file is damaged or cannot be read: {text}."
            ) from error


def _encrypted() -> FileError:
    return FileError(Category.DATA_MALFORMED, "The Parquet file is encrypted, and encrypted files are not read.")


def _check_magic(stored: StoredFile) -> None:
    size = stored.size()
    tail = stored.at(size - 4, size) if size >= 4 else b""  # noqa: PLR2004 - the length of the mark
    if tail == ENCRYPTED_MAGIC:
        raise _encrypted()
    if size < 12 or tail != MAGIC or stored.at(0, 4) != MAGIC:  # noqa: PLR2004 - two marks and a length
        raise FileError(Category.DATA_MALFORMED, "This is not a Parquet file, or it is cut: the end mark is missing.")


def _check_types(schema: pa.Schema) -> None:
    for field in schema:
        if pa.types.is_duration(field.type) or pa.types.is_interval(field.type):
            message = f'Column "{field.name}" is of type {field.type}, which no column of a table can hold.'
            raise FileError(Category.SCHEMA_MISMATCH, message)


def _check_depth(schema: pa.Schema) -> None:
    """Refuse what the functions that walk through a type cannot follow; columns of text take anything up to there."""
    for field in schema:
        level = [field.type]
        for _ in range(MAX_DEPTH):
            level = [inner for outer in level for inner in _inner_types(outer)]
        if level:
            message = (
                f'Column "{field.name}" is nested deeper than {MAX_DEPTH} levels. Flatten it, or write its inner part '
                "as text that holds JSON."
            )
            raise FileError(Category.LIMIT_EXCEEDED, message)


def _inner_types(kind: pa.DataType) -> list[pa.DataType]:
    if isinstance(kind, pa.BaseExtensionType):
        return _inner_types(kind.storage_type)
    return [kind.field(i).type for i in range(kind.num_fields)]


def _check_names(schema: Struct) -> None:
    for field in schema.fields:
        if system_columns.is_system(field.name):
            raise FileError(
                Category.SCHEMA_MISMATCH,
                f"The file has a column {field.name!r}: the name is taken by a column that we add to the table.",
            )
    _check_twice(schema, ())


def _check_twice(kind: DataType, path: tuple[str, ...]) -> None:
    if isinstance(kind, Struct):
        seen: dict[str, str] = {}
        for field in kind.fields:
            other = seen.get(field.name.lower())
            if other is not None:
                name = ".".join((*path, field.name))
                twice = "twice" if other == field.name else f"and {other!r}, which differs in case only"
                raise FileError(Category.DATA_MALFORMED, f"The file has the column {name!r} {twice}.")
            seen[field.name.lower()] = field.name
            _check_twice(field.type, (*path, field.name))
    elif isinstance(kind, ListOf):
        _check_twice(kind.element, path)
    elif isinstance(kind, MapOf):
        _check_twice(kind.value, path)


def _mismatch(error: MisfitError, rows_before: int) -> FileError:
    return FileError(
        Category.SCHEMA_MISMATCH,
        f"Row {rows_before + error.index + 1:,}, column {'.'.join(error.path)}: "
        f"the value {error.value} {error.reason}.",
    )


def _no_columns(rows: int) -> pa.Table:
    """A table of no columns that has rows all the same."""
    return pa.table({"": pa.nulls(rows)}).select([])


def _check_nanoseconds(batch: pa.RecordBatch, exact: pa.RecordBatch) -> None:
    for field, micros, nanos in zip(batch.schema, batch.columns, exact.columns, strict=True):
        if field.type == nanos.type:
            continue
        for one, other in _leaves(micros, nanos):
            rest = _rest(one, other)
            if pc.any(pc.not_equal(rest, 0)).as_py():
                raise FileError(
                    Category.SCHEMA_MISMATCH,
                    f"Column {field.name}: a value has nanoseconds; the table keeps microseconds. It does not fit.",
                )


def _leaves(one: pa.Array, other: pa.Array) -> Iterator[tuple[pa.Array, pa.Array]]:
    if one.type == other.type:
        return
    if pa.types.is_timestamp(one.type):
        yield one, other
    elif pa.types.is_struct(one.type):
        for left, right in zip(one.flatten(), other.flatten(), strict=True):
            yield from _leaves(left, right)
    elif pa.types.is_map(one.type):
        yield from _leaves(one.keys, other.keys)
        yield from _leaves(one.items, other.items)
    else:
        yield from _leaves(one.flatten(), other.flatten())


def _rest(micros: pa.Array, nanos: pa.Array) -> pa.Array:
    # The nanoseconds of a far year overflow, and so does the product: the difference of both is right all the same.
    return pc.subtract(nanos.cast(pa.int64()), pc.multiply(micros.cast(pa.int64()), 1000))


def news(known: Struct, seen: Struct) -> Struct:
    """The fields of `seen` that `known` cannot hold before it changes."""
    fields = []
    for field in seen.fields:
        one = Struct((field,))
        if known.find(field.name) is None or plan_changes(known, one):
            fields.append(replace(field, type=_news_type(known.find(field.name), field.type)))
    return Struct(tuple(fields))


def _news_type(known: Field | None, seen: DataType) -> DataType:
    if known is not None and isinstance(known.type, Struct) and isinstance(seen, Struct):
        return news(known.type, seen)
    return seen
