"""Tables for tests: schemas with field ids, and the rows of written data files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.domain.ports import WriteResult
from app.domain.system_columns import system_columns
from app.domain.types import DataType, Field, ListOf, MapOf, Struct


def table_schema(*fields: Field, provenance: bool = True) -> Struct:
    """A table of these columns and ours, every field with an id of its own."""
    return _with_ids(Struct((*fields, *system_columns(provenance=provenance))), itertools.count(1))


def _with_ids(struct: Struct, ids: Iterator[int]) -> Struct:
    return Struct(tuple(replace(f, id=next(ids), type=_type(f.type, ids)) for f in struct.fields))


def _type(kind: DataType, ids: Iterator[int]) -> DataType:
    if isinstance(kind, Struct):
        return _with_ids(kind, ids)
    if isinstance(kind, ListOf):
        return replace(kind, element_id=next(ids), element=_type(kind.element, ids))
    if isinstance(kind, MapOf):
        key, value = next(ids), next(ids)
        return replace(kind, key_id=key, value_id=value, key=_type(kind.key, ids), value=_type(kind.value, ids))
    return kind


def written(result: WriteResult) -> pa.Table:
    """The rows of all data files of a result, as another reader sees them."""
    return pa.concat_tables([pq.read_table(Path(f.path)) for f in result.data_files])


def written_rows(result: WriteResult) -> list[dict[str, Any]]:
    """The same, as dictionaries."""
    return written(result).to_pylist() if result.data_files else []
