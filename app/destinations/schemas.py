"""Our types and Iceberg's, one into the other. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from app.domain.types import DataType, Decimal, Field, Fixed, ListOf, MapOf, Primitive, Struct

_PRIMITIVES: dict[str, IcebergType] = {
    "boolean": BooleanType(),
    "int": IntegerType(),
    "long": LongType(),
    "float": FloatType(),
    "double": DoubleType(),
    "date": DateType(),
    "time": TimeType(),
    "timestamp": TimestampType(),
    "timestamptz": TimestamptzType(),
    "string": StringType(),
    "uuid": UUIDType(),
    "binary": BinaryType(),
}


def to_iceberg(struct: Struct) -> Schema:
    """A schema that a catalog can make a table of; the ids in it are placeholders."""
    ids = itertools.count(1)
    return Schema(*(_field(f, lambda: next(ids)) for f in struct.fields))


def type_to_iceberg(kind: DataType) -> IcebergType:
    """The Iceberg type; the ids in it are placeholders.

    Raises:
        ValueError: No table can hold it (`unknown`).
    """
    ids = itertools.count(1)
    return _to_type(kind, lambda: next(ids))


def _field(field: Field, next_id: Callable[[], int]) -> NestedField:
    return NestedField(
        field_id=next_id(), name=field.name, field_type=_to_type(field.type, next_id), required=field.required
    )


def _to_type(kind: DataType, next_id: Callable[[], int]) -> IcebergType:
    match kind:
        case Struct():
            return StructType(*(_field(f, next_id) for f in kind.fields))
        case ListOf():
            element_id = next_id()
            return ListType(element_id, _to_type(kind.element, next_id), element_required=kind.element_required)
        case MapOf():
            key_id, value_id = next_id(), next_id()
            return MapType(
                key_id,
                _to_type(kind.key, next_id),
                value_id,
                _to_type(kind.value, next_id),
                value_required=kind.value_required,
            )
        case Decimal():
            return DecimalType(kind.precision, kind.scale)
        case Fixed():
            return FixedType(kind.length)
    if kind.name not in _PRIMITIVES:
        raise ValueError(f"No table can hold a column of type {kind}.")
    return _PRIMITIVES[kind.name]


def from_iceberg(schema: Schema) -> Struct:
    """The schema with every field's id."""
    return _from_struct(schema.as_struct())


def _from_struct(struct: StructType) -> Struct:
    return Struct(tuple(Field(f.name, _from_type(f.field_type), f.required, f.field_id) for f in struct.fields))


def _from_type(kind: IcebergType) -> DataType:
    match kind:
        case StructType():
            return _from_struct(kind)
        case ListType():
            return ListOf(_from_type(kind.element_type), kind.element_id, kind.element_required)
        case MapType():
            return MapOf(
                _from_type(kind.key_type), _from_type(kind.value_type), kind.key_id, kind.value_id, kind.value_required
            )
        case DecimalType():
            return Decimal(kind.precision, kind.scale)
        case FixedType():
            return Fixed(len(kind))
    # Types of later format versions keep their name, so that a table of that kind can at least be looked at.
    return Primitive(str(kind))
