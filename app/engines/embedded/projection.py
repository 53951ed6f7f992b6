"""Puts rows of an older data file under the table's schema of now: columns by their ids, values as they are."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.domain.types import DataType, Field, ListOf, MapOf, Struct
from app.engines.embedded.arrow_types import FIELD_ID, arrow_field, arrow_type


class ProjectionError(Exception):
    """The rows do not fit the schema: the file is not one of this table's, or of no writer that keeps the rules."""


def field_id(field: pa.Field) -> int | None:
    """The Iceberg id of a column, as Parquet files carry it."""
    text = (field.metadata or {}).get(FIELD_ID)
    return None if text is None else int(text)


def project(rows: pa.RecordBatch, schema: Struct) -> list[pa.Array]:
    """The columns of `schema` from those of `rows` with the same ids; NULL where there is none.

    Raises:
        ProjectionError: A value has no place in its column.
    """
    return _columns(rows.columns, list(rows.schema), len(rows), schema)


def _columns(columns: Sequence[pa.Array], fields: Sequence[pa.Field], length: int, schema: Struct) -> list[pa.Array]:
    by_id = {field_id(field): column for field, column in zip(fields, columns, strict=True)}
    return [_column(by_id.get(field.id), field, length) for field in schema.fields]


def _column(array: pa.Array | None, field: Field, length: int) -> pa.Array:
    if array is None:
        if field.required:
            raise ProjectionError(f"the column {field.name} is required, and the file has none of its id")
        return pa.nulls(length, arrow_type(field.type))
    try:
        return _project(array, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise ProjectionError(f"the column {field.name} of type {array.type} does not fit {field.type}") from error


def _project(array: pa.Array, kind: DataType) -> pa.Array:
    if isinstance(kind, Struct):
        _expect(array, pt.is_struct(array.type), kind)
        children = _columns(array.flatten(), list(array.type.fields), len(array), kind)
        fields = [arrow_field(field) for field in kind.fields]
        return pa.StructArray.from_arrays(children, fields=fields, mask=array.is_null())
    if isinstance(kind, ListOf):
        _expect(array, pt.is_list(array.type) or pt.is_large_list(array.type), kind)
        # Flattening leaves out what a null list hides, so the offsets are counted anew from the lengths.
        elements = _project(array.flatten(), kind.element)
        offsets = _offsets(pc.list_value_length(array))
        return pa.ListArray.from_arrays(offsets, elements, type=arrow_type(kind), mask=array.is_null())
    if isinstance(kind, MapOf):
        _expect(array, pt.is_map(array.type), kind)
        start, stop = array.offsets[0].as_py(), array.offsets[-1].as_py()
        offsets = pc.subtract(array.offsets, pa.scalar(start, pa.int32()))
        keys = _project(array.keys.slice(start, stop - start), kind.key)
        values = _project(array.items.slice(start, stop - start), kind.value)
        return pa.MapArray.from_arrays(offsets, keys, values, type=arrow_type(kind), mask=array.is_null())
    return _scalars(array, arrow_type(kind))


def _scalars(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pt.is_dictionary(array.type):
        array = array.dictionary_decode()
    storage = wanted.storage_type if isinstance(wanted, pa.BaseExtensionType) else wanted
    # Safe: what a wider type cannot hold exactly is an error, never another value.
    exact = array if array.type == storage else pc.cast(array, storage, safe=True)
    return wanted.wrap_array(exact) if isinstance(wanted, pa.BaseExtensionType) else exact


def _offsets(lengths: pa.Array) -> pa.Array:
    ends = pc.cumulative_sum(pc.fill_null(lengths, 0).cast(pa.int64()))
    return pa.concat_arrays([pa.array([0], pa.int64()), ends]).cast(pa.int32())


def _expect(array: pa.Array, fits: bool, kind: DataType) -> None:  # noqa: FBT001 - a condition, as of an assertion
    if not fits:
        raise pa.ArrowTypeError(f"{array.type} is no {kind}")
