"""Columns of text and numbers that a fast parser made, turned into the table's types or refused as not certain."""

from __future__ import annotations

import codecs

import pyarrow as pa
import pyarrow.compute as pc

from app.domain.types import DATE, TIMESTAMP, DataType
from app.engines.embedded.text.temporal import parse_date
from app.engines.embedded.text.values import EXACT_DOUBLE

# Arrow's cast also takes a day, or an hour without minutes, for a moment; such text is shorter than these.
_SHORTEST_TIMESTAMP = len("2024-01-02T03:04")
_SHORTEST_ZONED = len("2024-01-02T03:04:05Z")
_FIRST_DAY = parse_date("0001-01-01")
_LAST_DAY = parse_date("9999-12-31")
_DAY_MICROS = 86_400 * 1_000_000


class UncertainError(Exception):
    """The fast road cannot prove its result; the exact road decides."""


def as_array(buffer: bytes, kind: pa.DataType) -> pa.Array:
    """An array of one value, without a copy: what is fewer than 2^31 bytes can be looked at by Arrow's functions."""
    return pa.Array.from_buffers(
        kind, 1, [None, pa.array([0, len(buffer)], pa.int32()).buffers()[1], pa.py_buffer(buffer)]
    )


def is_plain_utf8(buffer: bytes) -> bool:
    """Whether every byte belongs to a character, and no byte order mark is first: the parsers would drop it."""
    if buffer.isascii():
        return True
    if buffer.startswith(codecs.BOM_UTF8):
        return False
    try:
        as_array(buffer, pa.string()).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def whole(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece; one that is so already is not copied."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def certain_doubles(array: pa.Array) -> pa.Array:
    """The doubles, none of which may be an integer that was rounded, or no number at all."""
    if array.null_count == len(array):
        return array
    # A comparison with NaN is false, so that this refuses it together with what is too large.
    if not pc.all(pc.less(pc.abs(array), float(EXACT_DOUBLE))).as_py():
        raise UncertainError
    return array


def certain_moments(array: pa.Array, kind: DataType, wanted: pa.DataType) -> pa.Array:
    """Dates or timestamps out of their text."""
    if array.null_count == len(array):
        return pa.nulls(len(array), wanted)
    if kind != DATE:
        shortest = _SHORTEST_TIMESTAMP if kind == TIMESTAMP else _SHORTEST_ZONED
        if pc.min(pc.binary_length(array)).as_py() < shortest:
            raise UncertainError
    try:
        moments = pc.cast(array, wanted)
    except pa.ArrowInvalid as error:
        raise UncertainError from error
    check_years(moments, kind)
    return moments


def check_years(moments: pa.Array, kind: DataType) -> None:
    """Arrow knows a year 0; and what an offset moves out of the years 1 to 9999 is left to the exact road."""
    if _FIRST_DAY is None or _LAST_DAY is None:  # pragma: no cover
        raise UncertainError
    extremes = pc.min_max(moments.view(pa.int32() if kind == DATE else pa.int64())).as_py()
    first, last = (_FIRST_DAY, _LAST_DAY) if kind == DATE else (_FIRST_DAY * _DAY_MICROS, _LAST_DAY * _DAY_MICROS)
    if extremes["min"] < first or extremes["max"] > last:
        raise UncertainError
