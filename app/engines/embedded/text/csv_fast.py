"""The fast road for CSV: Arrow's parser, taken at its word only where it is proven exact.

Numbers, booleans and dates are first read as such, in one go, after a look at the bytes for the spellings that the
parser takes and CSV does not mean (007, 0x1F, a number with spaces around it). Where there are some, be it in a column
of text, every field is read as text, and each column's cast is held against that text.

What the parser is known to take without a word (text after a closed quote, a quote that is never closed, NUL bytes) is
looked for, and sends the files to the exact road.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

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
from app.engines.embedded.text.fast_values import (
    UncertainError,
    as_array,
    certain_doubles,
    certain_moments,
    check_years,
    is_plain_utf8,
    whole,
)
from app.engines.embedded.text.rows import table_of
from app.engines.embedded.text.spelling import read_doubles, read_integers

_MOMENTS = {DATE, TIMESTAMP, TIMESTAMPTZ}
_TYPES = {BOOLEAN, INT, LONG, DOUBLE, STRING} | _MOMENTS
_MAX_BUFFER_BYTES = 2**31 - 2**16
# Types that the parser may read by itself. Moments with a time are not: a day or an hour alone would pass for one.
_READ_AS_SUCH = {BOOLEAN, INT, LONG, DOUBLE, DATE}
_NOT_AN_END = re.compile(rb"[^\r\n]")


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
        self._columns = [str(place) for place in range(len(names))]
        texts = dict.fromkeys(self._columns, pa.string())
        self._as_texts = _convert(grammar, texts)
        known = {
            str(place): wanted.type
            for field, wanted, place in zip(schema.fields, self._arrow, self._places, strict=True)
            if place is not None and field.type in _READ_AS_SUCH
        }
        # None where no column gains by it, and from the first text on in which it proved nothing.
        self._as_such = _convert(grammar, texts | known) if known else None
        self._doubtful = _doubtful(grammar)

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
        if len(buffer) > _MAX_BUFFER_BYTES or b"\0" in buffer or not is_plain_utf8(buffer):
            return None
        try:
            rows = None if len(texts) == 1 else [self._count(text) for text in texts]
            self._check_signs(buffer)
            return self._read(buffer, rows)
        except UncertainError:
            return None

    def _read(self, buffer: bytes, rows: list[int] | None) -> tuple[pa.Table, list[int]]:
        if self._as_such is not None:
            try:
                self._refuse_doubtful(buffer)
                return self._settle(self._parse(buffer, self._as_such), rows)
            except UncertainError:
                self._as_such = None
        return self._settle(self._parse(buffer, self._as_texts), rows)

    def _refuse_doubtful(self, buffer: bytes) -> None:
        """No field may be spelled so that the parser takes it for a number or a date, and CSV does not."""
        if pc.match_substring_regex(as_array(buffer, pa.binary()), self._doubtful)[0].as_py():
            raise UncertainError

    def _count(self, text: bytes) -> int:
        """The records of a text, told by its newlines alone."""
        outside = text
        if self._grammar.quote:
            outside = b"".join(text.split(self._grammar.quote.encode())[::2])
        if outside.startswith((b"\n", b"\r\n")) or b"\n\n" in outside or b"\n\r\n" in outside:
            raise UncertainError
        return outside.count(b"\n")

    def _parse(self, buffer: bytes, convert: pv.ConvertOptions) -> pa.Table:
        quote = self._grammar.quote
        if _NOT_AN_END.search(buffer) is None:
            return pa.table({name: pa.nulls(0, convert.column_types[name]) for name in self._columns})
        parse = pv.ParseOptions(
            delimiter=self._grammar.delimiter,
            quote_char=quote or False,
            newlines_in_values=bool(quote) and quote.encode() in buffer,
        )
        read = pv.ReadOptions(use_threads=False, block_size=len(buffer) + 1, column_names=self._columns)
        try:
            return pv.read_csv(pa.BufferReader(buffer), read_options=read, parse_options=parse, convert_options=convert)
        except pa.ArrowInvalid as error:
            raise UncertainError from error

    def _check_signs(self, buffer: bytes) -> None:
        """Carriage returns stand before newlines only, and each quote where the grammar has a place for it."""
        if b"\r" in buffer and buffer.count(b"\r") != buffer.count(b"\r\n"):
            raise UncertainError
        quote = self._grammar.quote
        if quote and quote.encode() in buffer:
            _check_quotes(buffer, quote, self._grammar.delimiter)

    def _settle(self, table: pa.Table, rows: list[int] | None) -> tuple[pa.Table, list[int]]:
        rows = [len(table)] if rows is None else rows
        if len(table) != sum(rows):
            raise UncertainError
        columns = [whole(column) for column in table.columns]
        for place in self._extra:
            if _without_empty(columns[place]).null_count != len(table):
                raise UncertainError
        arrays = [
            pa.nulls(len(table), wanted.type) if place is None else _certain(columns[place], field.type, wanted.type)
            for field, wanted, place in zip(self._schema.fields, self._arrow, self._places, strict=True)
        ]
        if any(f.required and a.null_count for f, a in zip(self._schema.fields, arrays, strict=True)):
            raise UncertainError
        return table_of(arrays, self._arrow, len(table)), rows


def _convert(grammar: CsvGrammar, types: dict[str, pa.DataType]) -> pv.ConvertOptions:
    true, false = (["".join(s) for s in product(*zip(w, w.upper(), strict=True))] for w in ("true", "false"))
    return pv.ConvertOptions(
        check_utf8=False,
        column_types=types,
        null_values=sorted(grammar.null_values),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        true_values=true,
        false_values=false,
    )


def _doubtful(grammar: CsvGrammar) -> str:
    """A regular expression for spellings that the parser takes for numbers or dates, without regard to the column."""
    delimiter, quote = re.escape(grammar.delimiter), re.escape(grammar.quote)
    begin, end = rf"(?:\A|[{delimiter}{quote}\r\n])", rf"(?:[{delimiter}{quote}\r\n]|\z)"
    # A blank that separates is none, but within quotes.
    blank = "[ \\t]" if grammar.delimiter not in " \t" else "[ ]" if grammar.delimiter == "\t" else r"\t"
    spellings = [
        # 007, -00.5, 0x1F, +5
        rf"{begin}(?:-?0[0-9xX]|\+[0-9.])",
        # blanks before or behind
        rf"{begin}{blank}+[-+.0-9]",
        rf"[0-9.]{blank}+{end}",
        # 5. and 5.e3
        rf"[0-9]\.(?:{end}|[eE])",
    ]
    if quote and grammar.delimiter in " \t":
        spellings += [rf"{quote}[ \t]+[-+.0-9]", rf"[0-9.][ \t]+{quote}"]
    return "|".join(spellings)


def _check_quotes(buffer: bytes, quote: str, delimiter: str) -> None:
    """Each quote opens or closes in turn; the text between a closing and an opening one begins and ends with signs.

    Nothing at all between two quotes is a quote inside a field. An odd number of quotes leaves one open.
    """
    parts = pc.split_pattern(as_array(buffer, pa.string()), quote).values
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


def _without_empty(array: pa.Array) -> pa.Array:
    """Nulls in place of text without a character: only a column of text can hold it."""
    if array.null_count == len(array) or pc.min(pc.binary_length(array)).as_py() > 0:
        return array
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)


def _certain(array: pa.Array, kind: DataType, wanted: pa.DataType) -> pa.Array:
    """The column as the table's type; it comes as that, or as text."""
    if kind == STRING:
        return array
    if array.type == wanted:
        return _certain_as_such(array, kind)
    array = _without_empty(array)
    if kind in _MOMENTS:
        return certain_moments(array, kind, wanted)
    if kind == BOOLEAN:
        return _booleans(array)
    if kind == DOUBLE:
        return read_doubles(array, wanted, REAL, bare_point=True)
    return read_integers(array, wanted)


def _certain_as_such(array: pa.Array, kind: DataType) -> pa.Array:
    if kind == DOUBLE:
        return certain_doubles(array)
    if kind == DATE and array.null_count < len(array):
        check_years(array, kind)
    return array


def _booleans(array: pa.Array) -> pa.Array:
    lowered = pc.ascii_lower(array)
    true = pc.equal(lowered, "true")
    if pc.any(pc.invert(pc.or_(true, pc.equal(lowered, "false")))).as_py():
        raise UncertainError
    return true
