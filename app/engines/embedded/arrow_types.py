"""The table's types in Arrow's words, and back: one place, so that reading and writing cannot disagree."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

from app.domain.types import (
    BINARY,
    BOOLEAN,
    DATE,
    DOUBLE,
    FLOAT,
    INT,
    LONG,
    MAX_DECIMAL_DIGITS,
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

FIELD_ID = b"PARQUET:field_id"

_PRIMITIVES = {
    BOOLEAN: pa.bool_(),
    INT: pa.int32(),
    LONG: pa.int64(),
    FLOAT: pa.float32(),
    DOUBLE: pa.float64(),
    DATE: pa.date32(),
    TIME: pa.time64("us"),
    TIMESTAMP: pa.timestamp("us"),
    TIMESTAMPTZ: pa.timestamp("us", tz="UTC"),
    STRING: pa.string(),
    UUID: pa.uuid(),
    BINARY: pa.binary(),
    UNKNOWN: pa.null(),
}


def arrow_type(kind: DataType) -> pa.DataType:
    """The Arrow type that holds `kind`; children carry their field ids where they have one."""
    if isinstance(kind, Decimal):
        return pa.decimal128(kind.precision, kind.scale)
    if isinstance(kind, Fixed):
        return pa.binary(kind.length)
    if isinstance(kind, Struct):
        return pa.struct([arrow_field(field) for field in kind.fields])
    if isinstance(kind, ListOf):
        return pa.list_(_child("element", kind.element, kind.element_id, required=kind.element_required))
    if isinstance(kind, MapOf):
        return pa.map_(
            _child("key", kind.key, kind.key_id, required=True),
            _child("value", kind.value, kind.value_id, required=kind.value_required),
        )
    return _PRIMITIVES[kind]


def arrow_field(field: Field) -> pa.Field:
    """The Arrow field of a column: nullable unless required, its id in the metadata that Parquet writers read."""
    return _child(field.name, field.type, field.id, required=field.required)


def arrow_schema(struct: Struct) -> pa.Schema:
    """The Arrow schema of a table."""
    return pa.schema([arrow_field(field) for field in struct.fields])


def _child(name: str, kind: DataType, field_id: int | None, *, required: bool) -> pa.Field:
    metadata = None if field_id is None else {FIELD_ID: str(field_id).encode()}
    return pa.field(name, arrow_type(kind), nullable=not required, metadata=metadata)


def domain_type(kind: pa.DataType) -> DataType:
    """The narrowest of the table's types that holds every value of an Arrow type; string where none does.

    Fields come back nullable and without ids: what one file requires is no promise of the next one.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return UUID if isinstance(kind, pa.UuidType) else domain_type(kind.storage_type)
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return domain_type(kind.value_type)
    return _nested(kind) or _number(kind) or _other(kind)


def _nested(kind: pa.DataType) -> DataType | None:
    if pt.is_struct(kind):
        return Struct(tuple(Field(child.name, domain_type(child.type)) for child in kind.fields))
    if pt.is_map(kind):
        return MapOf(domain_type(kind.key_type), domain_type(kind.item_type))
    if any(test(kind) for test in _LISTS):
        return ListOf(domain_type(kind.value_type))
    return None


_LISTS = (pt.is_list, pt.is_large_list, pt.is_fixed_size_list, pt.is_list_view, pt.is_large_list_view)


_NUMBERS: dict[pa.DataType, DataType] = {
    **dict.fromkeys((pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16()), INT),
    **dict.fromkeys((pa.int64(), pa.uint32()), LONG),
    pa.uint64(): Decimal(20, 0),
    **dict.fromkeys((pa.float16(), pa.float32()), FLOAT),
    pa.float64(): DOUBLE,
}


def _number(kind: pa.DataType) -> DataType | None:
    if not pt.is_decimal(kind):
        return _NUMBERS.get(kind)
    # A negative scale means zeros before the point, which the table's decimals write out as digits.
    precision, scale = kind.precision - min(kind.scale, 0), max(kind.scale, 0)
    return Decimal(precision, scale) if max(precision, scale) <= MAX_DECIMAL_DIGITS else STRING


def _other(kind: pa.DataType) -> DataType:
    if pt.is_timestamp(kind):
        return TIMESTAMP if kind.tz is None else TIMESTAMPTZ
    if pt.is_fixed_size_binary(kind):
        return Fixed(kind.byte_width)
    return next((result for test, result in _PLAIN if test(kind)), STRING)


_PLAIN = (
    (pt.is_null, UNKNOWN),
    (pt.is_boolean, BOOLEAN),
    (pt.is_date, DATE),
    (pt.is_time, TIME),
    (pt.is_binary, BINARY),
    (pt.is_large_binary, BINARY),
    (pt.is_binary_view, BINARY),
)
