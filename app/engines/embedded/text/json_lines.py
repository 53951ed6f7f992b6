"""The fastest road for JSON: lines that all have the same keys in the same order, as programs write them.

Such lines are cut at each colon, or at each comma, by the parser for CSV, which takes a third of the time. All that
comes of it is held against what must stand there: keys, marks and blanks sign for sign, and between them values of the
kinds that the columns have. Put together again that is the lines, so nothing else can have been meant by them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from app.domain.types import BOOLEAN, DATE, DOUBLE, INT, LONG, STRING, TIMESTAMP, TIMESTAMPTZ, DataType, Struct
from app.engines.embedded.arrow_types import arrow_schema, arrow_type
from app.engines.embedded.text.fast_values import UncertainError, certain_moments, whole
from app.engines.embedded.text.rows import table_of
from app.engines.embedded.text.spelling import characters, read_doubles, read_integers

_MOMENTS = {DATE, TIMESTAMP, TIMESTAMPTZ}
_SCALARS = {BOOLEAN, INT, LONG, DOUBLE, STRING} | _MOMENTS
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_MEMBER = re.compile(rf'"([^"\\\x00-\x1f]+)"(: ?)("[^"\\]*"|null|true|false|{_NUMBER})(, ?|\}}\Z)')
_CONTROLS = bytes(range(0x20))
# Where a slice ends that goes to the end; Arrow multiplies it by the number of rows, so it is not the largest number.
_BEYOND_ALL = 2**31
PIECE_BYTES = 8 * 1024 * 1024
# After so many texts in a row that are not of this kind no further one is tried.
_MOST_FAILURES = 3


@dataclass(frozen=True)
class Place:
    """What a line has before and behind one of its values, and how many cuts go through the value."""

    key: str
    before: str
    behind: str
    cuts: int


@dataclass(frozen=True)
class Layout:
    """A line's form: cut at each `sign` it begins with the field `head` (None: with the first place)."""

    sign: str
    head: str | None
    places: tuple[Place, ...]

    @property
    def fields(self) -> int:
        """Into how many fields a line is cut."""
        return len(self.places) + sum(place.cuts for place in self.places) + (self.head is not None)


def layouts(line: str) -> tuple[Layout, ...]:
    """The forms that other lines may share with this one; none where it is not one flat object without escapes.

    Cut at its colons a line has the key of the next value behind a value, cut at its commas that of its own before it.
    A text in which there is such a sign may be cut in one row and not in the next, so either form may be the one.
    """
    members: list[tuple[str, str, str, str]] = []
    position = 1 if line.startswith("{") else len(line)
    while position < len(line):
        match = _MEMBER.match(line, position)
        if match is None:
            return ()
        members.append((match[1], match[2], match[3], match[4]))
        position = match.end()
    if not members or members[-1][3] != "}":
        return ()
    keys = [key for key, *_ in members]
    found = []
    if not any(":" in key for key in keys):
        following = [f'{comma}"{key}"' for (*_, comma), key in zip(members, keys[1:], strict=False)] + ["}"]
        places = (
            Place(key, colon[1:], behind, value.count(":"))
            for (key, colon, value, _), behind in zip(members, following, strict=True)
        )
        found.append(Layout(":", f'{{"{keys[0]}"', tuple(places)))
    if not any("," in key for key in keys):
        before = ["{", *(comma[1:] for *_, comma in members[:-1])]
        places = (
            Place(key, f'{begin}"{key}"{colon}', "", value.count(","))
            for (key, colon, value, _), begin in zip(members, before, strict=True)
        )
        *others, last = places
        found.append(Layout(",", None, (*others, replace(last, behind="}"))))
    return tuple(found)


class JsonLines:
    """Reads lines of one layout under one schema, when it can prove what it read."""

    def __init__(self, schema: Struct) -> None:
        """Prepare for `schema`."""
        self._schema = schema
        self._arrow = arrow_schema(schema)
        self._fields = {field.name: field for field in schema.fields}
        self._failures = 0

    def decode(self, texts: Sequence[bytes], buffer: bytes) -> tuple[pa.Table, list[int]] | None:
        """The rows of the texts, and how many each has; None when that is not certain.

        Args:
            texts: Each empty or ending in a newline.
            buffer: All of them in one; UTF-8 without NUL.
        """
        if self._failures >= _MOST_FAILURES:
            return None
        # What is escaped is left to the parser for JSON; a carriage return would end a line for this one.
        if b"\\" not in buffer and b"\r" not in buffer:
            for layout in layouts(buffer[: buffer.find(b"\n")].decode()):
                try:
                    decoded = self._read(texts, buffer, layout)
                except UncertainError:
                    continue
                self._failures = 0
                return decoded
        self._failures += 1
        return None

    def _read(self, texts: Sequence[bytes], buffer: bytes, layout: Layout) -> tuple[pa.Table, list[int]]:
        keys = [place.key for place in layout.places]
        if len(set(keys)) < len(keys) or not all(key in self._fields for key in keys):
            raise UncertainError
        if not all(self._fields[key].type in _SCALARS for key in keys):
            raise UncertainError
        table = pa.concat_tables(self._piece(piece, layout) for piece in _pieces(buffer))
        rows = [len(table)] if len(texts) == 1 else [text.count(b"\n") for text in texts]
        # An empty line is no row.
        if sum(rows) != len(table):
            raise UncertainError
        return table, rows

    def _piece(self, piece: pa.Buffer, layout: Layout) -> pa.Table:
        columns = _cut(piece, layout)
        count = len(columns[0])
        parts = iter(columns)
        if layout.head is not None and pc.equal(next(parts), layout.head).true_count != count:
            raise UncertainError
        found = {}
        for place in layout.places:
            fields = [next(parts) for _ in range(place.cuts + 1)]
            field = fields[0] if len(fields) == 1 else pc.binary_join_element_wise(*fields, layout.sign)
            found[place.key] = _values(field, place, self._fields[place.key].type)
        arrays = [found.get(field.name, pa.nulls(count, arrow_type(field.type))) for field in self._schema.fields]
        if any(f.required and a.null_count for f, a in zip(self._schema.fields, arrays, strict=True)):
            raise UncertainError
        return table_of(arrays, self._arrow, count)


def _pieces(buffer: bytes) -> Iterator[pa.Buffer]:
    """Whole lines, not too many at once: what is made of them takes several times their room."""
    whole, start = pa.py_buffer(buffer), 0
    while start < len(buffer):
        stop = buffer.rfind(b"\n", start, start + PIECE_BYTES) + 1 or buffer.index(b"\n", start) + 1
        yield whole.slice(start, stop - start)
        start = stop


def _cut(piece: pa.Buffer, layout: Layout) -> list[pa.Array]:
    """The fields of all lines; each line has as many as the layout says."""
    names = [str(place) for place in range(layout.fields)]
    read = pv.ReadOptions(use_threads=False, block_size=piece.size + 1, column_names=names)
    parse = pv.ParseOptions(delimiter=layout.sign, quote_char=False, escape_char=False, newlines_in_values=False)
    convert = pv.ConvertOptions(
        check_utf8=False, column_types=dict.fromkeys(names, pa.string()), null_values=[], strings_can_be_null=False
    )
    try:
        table = pv.read_csv(pa.BufferReader(piece), read_options=read, parse_options=parse, convert_options=convert)
    except pa.ArrowInvalid as error:
        raise UncertainError from error
    return [whole(column) for column in table.columns]


def _values(fields: pa.Array, place: Place, kind: DataType) -> pa.Array:
    """The values in fields that have nothing else than them between what is before and behind."""
    if kind == BOOLEAN:
        return _booleans(fields, place)
    missing = pc.equal(fields, f"{place.before}null{place.behind}")
    mark = '"' if kind == STRING or kind in _MOMENTS else ""
    values = _between(fields, place.before + mark, mark + place.behind, missing)
    if kind == DOUBLE:
        return read_doubles(values, arrow_type(kind), _NUMBER, bare_point=False)
    if not mark:
        return read_integers(values, arrow_type(kind))
    text = characters(values)
    # A quote would end the text, and a sign of control may not stand in one.
    if b'"' in text or len(text.translate(None, _CONTROLS)) != len(text):
        raise UncertainError
    return values if kind == STRING else certain_moments(values, kind, arrow_type(kind))


def _booleans(fields: pa.Array, place: Place) -> pa.Array:
    true, false, missing = (
        pc.equal(fields, f"{place.before}{word}{place.behind}") for word in ("true", "false", "null")
    )
    if true.true_count + false.true_count + missing.true_count != len(fields):
        raise UncertainError
    return pc.if_else(missing, pa.scalar(None, pa.bool_()), true) if missing.true_count else true


def _between(fields: pa.Array, before: str, behind: str, missing: pa.Array) -> pa.Array:
    """What is between, null where it is missing."""
    begin, end = len(before.encode()), len(behind.encode())
    nulls = missing.true_count
    if nulls:
        fields = pc.if_else(missing, pa.scalar(None, pa.string()), fields)
    there = len(fields) - nulls
    if (before and pc.starts_with(fields, before).true_count != there) or (
        behind and pc.ends_with(fields, behind).true_count != there
    ):
        raise UncertainError
    # Both may be the same signs where there are too few.
    if there and pc.min(pc.binary_length(fields)).as_py() < begin + end:
        raise UncertainError
    return pc.binary_slice(fields.cast(pa.binary()), begin, -end or _BEYOND_ALL).view(pa.string())
