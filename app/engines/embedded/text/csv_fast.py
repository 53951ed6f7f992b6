"""The fast road for CSV: Arrow's parser reads every field as text, and casts are taken where they are proven exact.

What its parser is known to take without a word (text after a closed quote, a quote that is never closed, NUL bytes) is
looked for, and sends the files to the exact road.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from app.domain.types import (
    BOOLEAN,
    DATE,
    DOUBLE,
    INT,
    LONG,
    STRING,
    TIMESTAMP,
    TIMESTAMPTZ,
    DataType,
    Struct,
)
from app.engines.embedded.arrow_types import arrow_schema
from app.engines.embedded.text.csv_grammar import CsvGrammar
from app.engines.embedded.text.csv_table import REAL
from app.engines.embedded.text.fast_values import UncertainError, certain_doubles, certain_moments, is_utf8
from app.engines.embedded.text.rows import table_of

_MOMENTS = {DATE, TIMESTAMP, TIMESTAMPTZ}
_TYPES = {BOOLEAN, INT, LONG, DOUBLE, STRING} | _MOMENTS
_MAX_BUFFER_BYTES = 2**31 - 2**16


class FastCsv:
    """Reads the records of files with one header under one schema, when it can prove what it read."""

    def __init__(
        self, grammar: CsvGrammar, names: tuple[str, ...], schema: Struct, *, ignored: frozenset[str] | None = None
    ) -> None:
        """Prepare for files with columns `names`.

        Args:
            grammar: A plain one.
            names: At least one.
            schema: The table's data columns.
            ignored: Columns that `schema` lacks and that may hold nothing but nulls; None: any may.
        """
        self._grammar = grammar
        self._schema = schema
        self._arrow = arrow_schema(schema)
        self._places = self._find_places(names)
        self._extra = [place for place, name in enumerate(names) if schema.find(name) is None]
        extras = {names[place] for place in self._extra}
        self.possible = (ignored is None or extras <= ignored) and self._types_possible()
        columns = [str(place) for place in range(len(names))]
        self._columns = columns
        self._convert = pv.ConvertOptions(
            check_utf8=False,
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=sorted(grammar.null_values),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )

    def _find_places(self, names: tuple[str, ...]) -> list[int | None]:
        found = {id(field): place for place, name in enumerate(names) if (field := self._schema.find(name)) is not None}
        return [found.get(id(field)) for field in self._schema.fields]

    def _types_possible(self) -> bool:
        return all(
            (not f.required if place is None else f.type in _TYPES)
            for f, place in zip(self._schema.fields, self._places, strict=True)
        )

    def holds(self, text: bytes) -> bool:
        """Whether all records of `text` certainly fit, and show nothing that the schema does not have."""
        return self.decode([text]) is not None

    def decode(self, texts: Sequence[bytes]) -> tuple[pa.Table, list[int]] | None:
        """The rows of the texts (records without a header), and how many each has; None when that is not certain."""
        if not self.possible:
            return None
        texts = [text if text.endswith(b"\n") or not text else text + b"\n" for text in texts]
        buffer = b"".join(texts)
        if len(buffer) > _MAX_BUFFER_BYTES or b"\0" in buffer or not is_utf8(buffer):
            return None
        try:
            rows = [0] if len(texts) == 1 else [self._count(text) for text in texts]
            table = self._parse(buffer)
            if len(texts) == 1:
                rows = [len(table)]
            return self._settle(table, rows), rows
        except UncertainError:
            return None

    def _count(self, text: bytes) -> int:
        """The records of a text, told by its newlines alone."""
        outside = text
        if self._grammar.quote:
            outside = b"".join(text.split(self._grammar.quote.encode())[::2])
        if outside.startswith((b"\n", b"\r\n")) or b"\n\n" in outside or b"\n\r\n" in outside:
            raise UncertainError
        return outside.count(b"\n")

    def _parse(self, buffer: bytes) -> pa.Table:
        self._check_signs(buffer)
        quote = self._grammar.quote
        if not buffer.strip(b"\r\n"):
            return pa.table({name: pa.nulls(0, pa.string()) for name in self._columns})
        parse = pv.ParseOptions(
            delimiter=self._grammar.delimiter,
            quote_char=quote or False,
            newlines_in_values=bool(quote) and quote.encode() in buffer,
        )
        read = pv.ReadOptions(use_threads=False, block_size=len(buffer) + 1, column_names=self._columns)
        try:
            return pv.read_csv(
                pa.BufferReader(buffer), read_options=read, parse_options=parse, convert_options=self._convert
            )
        except pa.ArrowInvalid as error:
            raise UncertainError from error

    def _check_signs(self, buffer: bytes) -> None:
        """Carriage returns stand before newlines only, and each quote where the grammar has a place for it."""
        if b"\r" in buffer and buffer.count(b"\r") != buffer.count(b"\r\n"):
            raise UncertainError
        quote = self._grammar.quote
        if quote and quote.encode() in buffer:
            _check_quotes(buffer, quote, self._grammar.delimiter)

    def _settle(self, table: pa.Table, rows: list[int]) -> pa.Table:
        if len(table) != sum(rows):
            raise UncertainError
        columns = [column.combine_chunks() for column in table.columns]
        for place in self._extra:
            if _without_empty(columns[place]).null_count != len(table):
                raise UncertainError
        arrays = [
            pa.nulls(len(table), wanted.type) if place is None else _certain(columns[place], field.type, wanted.type)
            for field, wanted, place in zip(self._schema.fields, self._arrow, self._places, strict=True)
        ]
        if any(f.required and a.null_count for f, a in zip(self._schema.fields, arrays, strict=True)):
            raise UncertainError
        return table_of(arrays, self._arrow, len(table))


def _check_quotes(buffer: bytes, quote: str, delimiter: str) -> None:
    """Each quote opens or closes in turn; the text between a closing and an opening one begins and ends with signs.

    Nothing at all between two quotes is a quote inside a field. An odd number of quotes leaves one open.
    """
    whole = pa.Array.from_buffers(pa.string(), 1, [None, _offsets(len(buffer)), pa.py_buffer(buffer)])
    parts = pc.split_pattern(whole, quote).values
    if len(parts) % 2 == 0:
        raise UncertainError
    # Every second bit is set: the parts outside quotes.
    bits = pa.py_buffer(b"\x55" * (len(parts) // 8 + 1))
    outside = parts.filter(pa.Array.from_buffers(pa.bool_(), len(parts), [None, bits]))
    empty = pc.equal(pc.binary_length(outside), 0)
    begins, ends = (
        pc.or_(empty, pc.or_(pc.or_(test(outside, delimiter), test(outside, "\n")), test(outside, "\r")))
        for test in (pc.starts_with, pc.ends_with)
    )
    # Before the first quote there may be anything, and so behind the last one.
    if not (pc.all(begins.slice(1)).as_py() and pc.all(ends.slice(0, len(ends) - 1)).as_py()):
        raise UncertainError


def _offsets(length: int) -> pa.Buffer:
    return pa.array([0, length], pa.int32()).buffers()[1]


def _without_empty(array: pa.Array) -> pa.Array:
    """Nulls in place of text without a character: only a column of text can hold it."""
    if array.null_count == len(array) or pc.min(pc.binary_length(array)).as_py() > 0:
        return array
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)


def _certain(array: pa.Array, kind: DataType, wanted: pa.DataType) -> pa.Array:
    """The column as the table's type."""
    if kind == STRING:
        return array
    array = _without_empty(array)
    if kind in _MOMENTS:
        return certain_moments(array, kind, wanted)
    if kind == BOOLEAN:
        return _booleans(array)
    return _numbers(array, kind, wanted)


def _booleans(array: pa.Array) -> pa.Array:
    lowered = pc.ascii_lower(array)
    true = pc.equal(lowered, "true")
    if pc.any(pc.invert(pc.or_(true, pc.equal(lowered, "false")))).as_py():
        raise UncertainError
    return true


def _numbers(array: pa.Array, kind: DataType, wanted: pa.DataType) -> pa.Array:
    try:
        numbers = pc.cast(array, wanted)
    except pa.ArrowInvalid as error:
        raise UncertainError from error
    if kind == DOUBLE:
        if pc.any(pc.invert(pc.match_substring_regex(array, rf"\A(?:{REAL})\z"))).as_py():
            raise UncertainError
        return certain_doubles(numbers)
    # The cast takes 007 and the like; written out again they are not what they were.
    if pc.any(pc.not_equal(pc.cast(numbers, pa.string()), array)).as_py():
        raise UncertainError
    return numbers
