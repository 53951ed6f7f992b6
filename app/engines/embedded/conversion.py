"""Puts Arrow values into a table's columns exactly, or says which value does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.domain.types import (
    BINARY,
    BOOLEAN,
    DATE,
    DOUBLE,
    FLOAT,
    INT,
    LONG,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UNKNOWN,
    UUID,
    DataType,
    Decimal,
    Field,
    Fixed,
    ListOf,
    MapOf,
    Struct,
)
from app.engines.embedded.arrow_types import arrow_field, arrow_type

_WIDEST = pa.decimal128(38, 0)
# Days since 1970 of 0001-01-01 and 9999-12-31.
FIRST_DAY, LAST_DAY = -719_162, 2_932_896
DAY_MICROS = 86_400 * 1_000_000


class MisfitError(Exception):
    """A value does not fit its column."""

    def __init__(self, path: tuple[str, ...], index: int, value: str, reason: str) -> None:
        """Say which.

        Args:
            path: The column, then the fields inside it.
            index: Of the row, from 0, in the array that was to be converted.
            value: As text, shortened.
            reason: Completes "the value … ".
        """
        super().__init__(reason)
        self.path = path
        self.index = index
        self.value = value
        self.reason = reason


@dataclass(frozen=True)
class _Target:
    """Where values go: the type, and the names that lead there."""

    kind: DataType
    path: tuple[str, ...]

    def within(self, kind: DataType, name: str) -> _Target:
        return _Target(kind, (*self.path, name))


def fit_struct(rows: pa.StructArray, schema: Struct) -> list[pa.Array]:
    """The columns of `schema` from the fields of `rows`, matched by name without regard to case; missing ones NULL.

    Raises:
        MisfitError: At the first value found that does not fit.
    """
    return _fit_fields(rows, schema, ())


def _fit_fields(rows: pa.StructArray, schema: Struct, path: tuple[str, ...]) -> list[pa.Array]:
    seen = Struct(tuple(Field(field.name, STRING) for field in rows.type.fields))
    # Flattened, a field is null where its struct is.
    columns = dict(zip([f.name for f in seen.fields], rows.flatten(), strict=True))
    by_fold = {name.lower(): name for name in reversed(columns)}
    fitted = []
    for field in schema.fields:
        name = field.name if field.name in columns else by_fold.get(field.name.lower())
        target = _Target(field.type, (*path, field.name))
        column = pa.nulls(len(rows), arrow_type(field.type)) if name is None else _fit(columns[name], target)
        if field.required:
            _check_required(rows, column, target)
        fitted.append(column)
    return fitted


def _check_required(rows: pa.Array, column: pa.Array, target: _Target) -> None:
    missing = pc.and_(column.is_null(), rows.is_valid())
    if (index := pc.index(missing, True).as_py()) >= 0:
        raise MisfitError(target.path, index, "NULL", "is not allowed: the column is required")


def _fit(array: pa.Array, target: _Target) -> pa.Array:
    if target.kind == STRING and isinstance(array.type, pa.UuidType):
        # Of the bytes alone nobody could tell that they are one.
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
    array = _plain(array)
    wanted = arrow_type(target.kind)
    if array.null_count == len(array):
        return pa.nulls(len(array), wanted)
    if isinstance(target.kind, Struct) and pt.is_struct(array.type):
        fields = _fit_fields(array, target.kind, target.path)
        return pa.StructArray.from_arrays(
            fields, fields=[arrow_field(f) for f in target.kind.fields], mask=array.is_null()
        )
    if isinstance(target.kind, MapOf) and pt.is_map(array.type):
        return _fit_map(array, target.kind, target)
    if isinstance(target.kind, ListOf) and _is_list(array.type):
        return _fit_list(array, target.kind, target)
    return _fit_scalars(array, target, wanted)


def _plain(array: pa.Array) -> pa.Array:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pt.is_dictionary(array.type):
        return _plain(array.dictionary_decode())
    if pt.is_run_end_encoded(array.type):
        return _plain(pc.run_end_decode(array))
    return array


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        any(
            test(kind)
            for test in (pt.is_list, pt.is_large_list, pt.is_fixed_size_list, pt.is_list_view, pt.is_large_list_view)
        )
    )


def _offsets(lengths: pa.Array) -> pa.Array:
    filled = pc.fill_null(lengths, 0).cast(pa.int64())
    ends = pc.cumulative_sum(filled)
    return pa.concat_arrays([pa.array([0], pa.int64()), ends]).cast(pa.int32())


def _fit_list(array: pa.Array, kind: ListOf, target: _Target) -> pa.Array:
    # Flattening leaves out what a slice or a null list hides, so the offsets are counted anew from the lengths.
    values = array.flatten()
    offsets = _offsets(pc.list_value_length(array))
    elements = _inside(values, offsets, target.within(kind.element, "element"))
    if kind.element_required and elements.null_count:
        row = _parent(offsets, pc.index(elements.is_null(), True).as_py())
        raise MisfitError((*target.path, "element"), row, "NULL", "is not allowed: the column is required")
    return pa.ListArray.from_arrays(offsets, elements, type=arrow_type(kind), mask=array.is_null())


def _fit_map(array: pa.MapArray, kind: MapOf, target: _Target) -> pa.Array:
    start, stop = array.offsets[0].as_py(), array.offsets[-1].as_py()
    offsets = pc.subtract(array.offsets, pa.scalar(start, pa.int32()))
    keys = _inside(array.keys.slice(start, stop - start), offsets, target.within(kind.key, "key"))
    _check_keys_once(keys, offsets, target)
    values = _inside(array.items.slice(start, stop - start), offsets, target.within(kind.value, "value"))
    return pa.MapArray.from_arrays(offsets, keys, values, type=arrow_type(kind), mask=array.is_null())


def _check_keys_once(keys: pa.Array, offsets: pa.Array, target: _Target) -> None:
    """A map with a key twice is none, and readers refuse the whole table for it."""
    if pt.is_nested(keys.type) or isinstance(keys.type, pa.BaseExtensionType):
        return
    rows = pc.list_parent_indices(pa.ListArray.from_arrays(offsets, keys))
    counted = pa.table({"row": rows, "key": keys}).group_by(["row", "key"]).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted.column("count_all"), 1))
    if len(twice):
        raise MisfitError(target.path, twice["row"][0].as_py(), str(twice["key"][0].as_py()), "is a key twice in a map")


def _inside(values: pa.Array, offsets: pa.Array, target: _Target) -> pa.Array:
    """Convert what is inside lists; an error's index becomes that of the list it is in."""
    try:
        return _fit(values, target)
    except MisfitError as error:
        raise MisfitError(error.path, _parent(offsets, error.index), error.value, error.reason) from error


def _parent(offsets: pa.Array, index: int) -> int:
    return int(pc.sum(pc.less_equal(offsets, index)).as_py()) - 1


# --- scalars ------------------------------------------------------------------------------------------------------


def _fit_scalars(array: pa.Array, target: _Target, wanted: pa.DataType) -> pa.Array:
    convert = _conversion(array.type, target.kind)
    if convert is None:
        return _misfit(array, 0, target, f"is of type {array.type}, which does not fit the column")
    storage = wanted.storage_type if isinstance(wanted, pa.BaseExtensionType) else wanted
    try:
        fitted = convert(array, storage)
    except pa.ArrowInvalid:
        return _find_misfit(array, target, lambda part: convert(part, storage))
    return wanted.wrap_array(fitted) if isinstance(wanted, pa.BaseExtensionType) else fitted


def _find_misfit(array: pa.Array, target: _Target, convert: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Halve the array until the first value that cannot be converted is alone."""
    start, stop = 0, len(array)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            convert(array.slice(start, middle - start))
        except pa.ArrowInvalid:
            stop = middle
        else:
            start = middle
    return _misfit(array, start, target, _reason(array.type))


def _reason(kind: pa.DataType) -> str:
    if (pt.is_timestamp(kind) or pt.is_time(kind)) and kind.unit == "ns":
        return "has nanoseconds, where the table keeps microseconds, or lies outside the years 1 to 9999"
    if pt.is_timestamp(kind) or pt.is_date(kind):
        return "lies outside the years 1 to 9999"
    return "does not fit the column"


def _misfit(array: pa.Array, start: int, target: _Target, reason: str) -> pa.Array:
    valid = array.slice(start).is_valid()
    index = start + int(pc.index(valid, True).as_py())
    text = array[index].cast(pa.string()).as_py() if pt.is_temporal(array.type) else str(array[index].as_py())
    raise MisfitError(target.path, index, text if len(text) <= 100 else text[:100] + "…", reason)  # noqa: PLR2004


Conversion = Callable[[pa.Array, pa.DataType], pa.Array]


def _conversion(source: pa.DataType, kind: DataType) -> Conversion | None:
    """How values of an Arrow type become those of a column; None where none of them fits."""
    if isinstance(kind, Decimal):
        return _decimal_conversion(source)
    if isinstance(kind, Fixed):
        return _cast if pt.is_fixed_size_binary(source) and source.byte_width == kind.length else None
    return next((convert for fits, convert in _CONVERSIONS.get(kind, ()) if fits(source)), None)


def _cast(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    return pc.cast(array, wanted, safe=True)


def _known_days(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    return _within(_cast(array, wanted), pa.int32(), FIRST_DAY, LAST_DAY)


def _known_moments(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    return _within(_cast(array, wanted), pa.int64(), FIRST_DAY * DAY_MICROS, (LAST_DAY + 1) * DAY_MICROS - 1)


def _within(array: pa.Array, storage: pa.DataType, first: int, last: int) -> pa.Array:
    """Refuse what lies outside the years 1 to 9999, which readers of the table cannot show."""
    found = pc.min_max(array.view(storage)).as_py()
    if found["min"] is not None and (found["min"] < first or found["max"] > last):
        raise pa.ArrowInvalid("A date or time lies outside the years 1 to 9999.")
    return array


def _decimal_conversion(source: pa.DataType) -> Conversion | None:
    if pt.is_integer(source):
        # By the widest decimal: Arrow would otherwise refuse a column that holds less than the whole integer type.
        return lambda array, wanted: _cast(_cast(array, _WIDEST), wanted)
    return _cast if pt.is_decimal(source) else None


def _decimal_to_double(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    # Only whole numbers are exact for sure.
    return _cast(_cast(array, pa.int64()), wanted)


def _time_text(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pt.is_timestamp(array.type) and array.type.tz is not None:
        array = _cast(array, pa.timestamp(array.type.unit, tz="UTC"))
    return pc.replace_substring(_cast(array, wanted), " ", "T")


def _bytes_text(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pt.is_fixed_size_binary(array.type):
        array = _cast(array, pa.binary())
    return _cast(array, wanted)


def _json_text(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    try:
        texts = [None if v is None else json.dumps(v, ensure_ascii=False, allow_nan=False) for v in array.to_pylist()]
    except (TypeError, ValueError) as error:
        raise pa.ArrowInvalid(str(error)) from error
    return pa.array(texts, wanted)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind) or pt.is_fixed_size_binary(kind)
    )


def _is_plain(kind: pa.DataType) -> bool:
    return bool(
        pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or pt.is_boolean(kind) or pt.is_date(kind)
    )


def _is_narrow_float(kind: pa.DataType) -> bool:
    return bool(pt.is_float16(kind) or pt.is_float32(kind))


def _is_naive(kind: pa.DataType) -> bool:
    return bool(pt.is_timestamp(kind) and kind.tz is None)


def _is_zoned(kind: pa.DataType) -> bool:
    return bool(pt.is_timestamp(kind) and kind.tz is not None)


def _is_time(kind: pa.DataType) -> bool:
    return bool(pt.is_time(kind) or pt.is_timestamp(kind))


_INTEGERS: tuple[tuple[Callable[[pa.DataType], bool], Conversion], ...] = (
    (pt.is_integer, _cast),
    (pt.is_decimal, _cast),
    (pt.is_floating, _cast),
)

_CONVERSIONS: dict[DataType, tuple[tuple[Callable[[pa.DataType], bool], Conversion], ...]] = {
    BOOLEAN: ((pt.is_boolean, _cast),),
    INT: _INTEGERS,
    LONG: _INTEGERS,
    FLOAT: ((_is_narrow_float, _cast), (pt.is_integer, _cast)),
    # A safe cast of an integer refuses what lies beyond 2^53, where a double skips numbers.
    DOUBLE: ((pt.is_floating, _cast), (pt.is_integer, _cast), (pt.is_decimal, _decimal_to_double)),
    DATE: ((pt.is_date, _known_days),),
    TIME: ((pt.is_time, _cast),),
    TIMESTAMP: ((_is_naive, _known_moments),),
    TIMESTAMPTZ: ((_is_zoned, _known_moments),),
    STRING: (
        (_is_text, _cast),
        (_is_plain, _cast),
        (_is_time, _time_text),
        (_is_bytes, _bytes_text),
        (pt.is_nested, _json_text),
    ),
    UUID: ((lambda kind: pt.is_fixed_size_binary(kind) and kind.byte_width == 16, _cast),),  # noqa: PLR2004
    BINARY: ((_is_bytes, _cast),),
    UNKNOWN: (),
}
