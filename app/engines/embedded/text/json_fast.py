"""The fast road for JSON: Arrow's parser under an explicit schema, and proof that its result is the exact one.

What its parser is known to take without a word (null as a row, NaN, integers rounded into doubles, broken UTF-8, NUL
bytes) is looked for, and sends the files to the exact road.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.types as pt

from app.domain.system_columns import is_system
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
    ListOf,
    Struct,
)
from app.engines.embedded.arrow_types import arrow_schema, arrow_type
from app.engines.embedded.text.fast_values import (
    UncertainError,
    certain_doubles,
    certain_moments,
    is_plain_utf8,
    whole,
)
from app.engines.embedded.text.json_lines import JsonLines
from app.engines.embedded.text.layout import from_zero, nest
from app.engines.embedded.text.rows import table_of

_MOMENTS = {DATE, TIMESTAMP, TIMESTAMPTZ}
_SCALARS = {BOOLEAN, INT, LONG, DOUBLE, STRING} | _MOMENTS
# Arrow counts the bytes of a block in 31 bits.
_MAX_BUFFER_BYTES = 2**31 - 2**16
_MAX_DEPTH = 50
_MAX_BRACKETS = 500
_FIRST_SIGN = re.compile(rb"[ \t\r\n]*+([^ \t\r\n])")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{\n"))


class FastJson:
    """Reads streams of objects under one schema, when it can prove what it read."""

    def __init__(self, schema: Struct, *, ignored: frozenset[str] | None = None) -> None:
        """Prepare for `schema`.

        Args:
            schema: One that `can_read` says yes to.
            ignored: Further columns that may hold nothing but nulls; None: any may.
        """
        self._schema = schema
        self._arrow = arrow_schema(schema)
        self._ignored = ignored
        # A name that no file can know, so that a row with it is ours and stands between two files.
        self._mark = f"mark-{secrets.token_hex(16)}"
        fields = [pa.field(f.name, _read_type(f.type)) for f in schema.fields]
        self._lines = JsonLines(schema)
        self._explicit = pa.schema([*fields, pa.field(self._mark, pa.int64())])

    @staticmethod
    def can_read(schema: Struct) -> bool:
        """Whether all types of `schema` have a fast road; required fields below the top have none."""
        names = {f.name.lower() for f in schema.fields}
        return len(names) == len(schema.fields) > 0 and all(_is_fast(f.type, 1) for f in schema.fields)

    def holds(self, text: bytes) -> bool:
        """Whether all records of `text` certainly fit, and bring nothing that the schema does not have."""
        return self.decode([text]) is not None

    def decode(self, texts: Sequence[bytes]) -> tuple[pa.Table, list[int]] | None:
        """The rows of the texts one after the other, and how many each has; None when that is not certain."""
        texts = [text if text.endswith(b"\n") or not text else text + b"\n" for text in texts]
        buffer = texts[0] if len(texts) == 1 else b"".join(texts)
        if len(buffer) > _MAX_BUFFER_BYTES or b"\0" in buffer or not is_plain_utf8(buffer):
            return None
        begin = _FIRST_SIGN.match(buffer)
        if begin is not None and begin[1] != b"{":
            # A null at the beginning ends the parser's process.
            return None
        decoded = None if begin is None else self._lines.decode(texts, buffer)
        if decoded is not None:
            return decoded
        try:
            return self._settle(self._parse(self._marked(texts)), len(texts))
        except UncertainError:
            return None

    def _marked(self, texts: Sequence[bytes]) -> bytes:
        parts: list[bytes] = []
        for place, text in enumerate(texts):
            parts += (text, b'{"%s":%d}\n' % (self._mark.encode(), place))
        return b"".join(parts)

    def _parse(self, buffer: bytes) -> pa.Table:
        """The parser's table, new columns inferred only where that cannot overflow its stack."""
        try:
            return self._read(buffer, "error")
        except pa.ArrowInvalid as error:
            if "unexpected field" not in str(error) or not _is_shallow(buffer):
                raise UncertainError from error
        try:
            return self._read(buffer, "infer")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UncertainError from error

    def _read(self, buffer: bytes, unexpected: str) -> pa.Table:
        parse = pj.ParseOptions(explicit_schema=self._explicit, unexpected_field_behavior=unexpected)
        read = pj.ReadOptions(use_threads=False, block_size=len(buffer) + 1)
        return pj.read_json(pa.BufferReader(buffer), read_options=read, parse_options=parse)

    def _settle(self, table: pa.Table, count: int) -> tuple[pa.Table, list[int]]:
        self._check_names(table.schema)
        marks = whole(table.column(self._mark))
        own = pc.is_valid(marks)
        ends = pc.indices_nonzero(own).to_pylist()
        if marks.drop_null().to_pylist() != list(range(count)) or ends[-1] != len(table) - 1:
            raise UncertainError
        columns = [whole(table.column(f.name)) for f in self._schema.fields]
        if any(column.take(pa.array(ends)).null_count != count for column in columns):
            raise UncertainError
        rows = [end - start - 1 for start, end in zip([-1, *ends], ends, strict=False)]
        if count == 1:
            columns = [column.slice(0, rows[0]) for column in columns]
        else:
            kept = pc.invert(own)
            columns = [column.filter(kept) for column in columns]
        _check_rows(columns, self._schema)
        arrays = [
            _certain(c, f.type, a.type) for c, f, a in zip(columns, self._schema.fields, self._arrow, strict=True)
        ]
        return table_of(arrays, self._arrow, sum(rows)), rows

    def _check_names(self, schema: pa.Schema) -> None:
        """Further columns are let go where all that they hold is null, and no name clashes."""
        extra = [f for f in schema if f.name != self._mark and self._schema.find(f.name) is None]
        folded = {f.name.lower() for f in extra}
        if len(folded) < len(extra) or len(schema) != len(self._schema.fields) + 1 + len(extra):
            raise UncertainError
        for field in extra:
            ignored = self._ignored is None or field.name in self._ignored
            if not ignored or not pt.is_null(field.type) or is_system(field.name):
                raise UncertainError


def _is_fast(kind: DataType, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        return False
    if isinstance(kind, Struct):
        return bool(kind.fields) and all(not f.required and _is_fast(f.type, depth + 1) for f in kind.fields)
    if isinstance(kind, ListOf):
        return not kind.element_required and _is_fast(kind.element, depth + 1)
    return kind in _SCALARS


def _read_type(kind: DataType) -> pa.DataType:
    """What the parser is told to read: moments as the text they are."""
    if isinstance(kind, Struct):
        return pa.struct([pa.field(f.name, _read_type(f.type)) for f in kind.fields])
    if isinstance(kind, ListOf):
        return pa.list_(pa.field("element", _read_type(kind.element)))
    return pa.string() if kind in _MOMENTS else arrow_type(kind)


def _is_shallow(buffer: bytes) -> bool:
    """Whether every line is a record of its own with few brackets.

    The parser builds types of new columns by recursion, and some thousand levels end the process. A line that ends
    in a brace before one that begins with a brace can only be the end of a record, or an error.
    """
    ends = buffer.count(b"\n")
    begun = buffer.startswith(b"{") + buffer.count(b"\n{")
    if begun != ends or buffer.count(b"}\n") + buffer.count(b"}\r\n") != ends:
        return False
    brackets = buffer.translate(None, _NO_BRACKETS)
    return max(map(len, brackets.split(b"\n"))) <= _MAX_BRACKETS


def _check_rows(columns: list[pa.Array], schema: Struct) -> None:
    """No row may be null throughout: the parser makes such a row of a `null` that is no record."""
    if any(f.required and c.null_count for c, f in zip(columns, schema.fields, strict=True)):
        raise UncertainError
    if any(column.null_count == 0 for column in columns):
        return
    empty = pc.is_null(columns[0])
    for column in columns[1:]:
        empty = pc.and_(empty, pc.is_null(column))
    if pc.any(empty).as_py():
        raise UncertainError


def _certain(array: pa.Array, kind: DataType, wanted: pa.DataType) -> pa.Array:
    """The array as the table's type."""
    if isinstance(kind, Struct):
        return _certain_struct(array, kind, wanted)
    if isinstance(kind, ListOf):
        if not pt.is_list(array.type):
            raise UncertainError
        array = from_zero(array)
        return nest(array, wanted, [_certain(array.values, kind.element, wanted.value_type)])
    if kind in _MOMENTS:
        return certain_moments(array, kind, wanted)
    if array.type != wanted:
        raise UncertainError
    return certain_doubles(array) if kind == DOUBLE else array


def _certain_struct(array: pa.Array, kind: Struct, wanted: pa.DataType) -> pa.Array:
    if not pt.is_struct(array.type) or [f.name for f in array.type.fields] != [f.name for f in kind.fields]:
        raise UncertainError
    array = from_zero(array)
    children = [_certain(array.field(i), f.type, wanted.field(i).type) for i, f in enumerate(kind.fields)]
    return nest(array, wanted, children)
