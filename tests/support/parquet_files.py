"""Parquet files with field ids, for tests that need data files without an engine."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.domain.ports import DataFile, DataSink
from app.domain.types import DataType, Decimal, Field, Fixed, ListOf, MapOf, Struct

PRIMITIVES = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "string": pa.string(),
    "uuid": pa.uuid(),
    "binary": pa.binary(),
}


def arrow_field(field: Field) -> pa.Field:
    """The field, with its id where Parquet keeps it."""
    return pa.field(field.name, arrow_type(field.type), nullable=not field.required, metadata=_id(field.id))


def arrow_type(kind: DataType) -> pa.DataType:
    """The type as Arrow has it."""
    match kind:
        case Struct():
            return pa.struct([arrow_field(f) for f in kind.fields])
        case ListOf():
            return pa.list_(pa.field("element", arrow_type(kind.element), metadata=_id(kind.element_id)))
        case MapOf():
            key = pa.field("key", arrow_type(kind.key), nullable=False, metadata=_id(kind.key_id))
            return pa.map_(key, pa.field("value", arrow_type(kind.value), metadata=_id(kind.value_id)))
        case Decimal():
            return pa.decimal128(kind.precision, kind.scale)
        case Fixed():
            return pa.binary(kind.length)
    return PRIMITIVES[kind.name]


def _id(field_id: int | None) -> dict[bytes, bytes] | None:
    return None if field_id is None else {b"PARQUET:field_id": str(field_id).encode()}


def parquet_bytes(schema: Struct, rows: Sequence[dict[str, Any]]) -> bytes:
    """A Parquet file of these rows."""
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(list(rows), schema=pa.schema([arrow_field(f) for f in schema.fields]))
    pq.write_table(table, buffer)
    return buffer.getvalue()


def write_data_file(sink: DataSink, name: str, schema: Struct, rows: Sequence[dict[str, Any]]) -> DataFile:
    """Write rows as an engine would."""
    data = parquet_bytes(schema, rows)
    path, stream = sink.create(name)
    with stream as file:
        file.write(data)
    return DataFile(path, len(rows), len(data))
