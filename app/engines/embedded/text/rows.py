"""Records into Arrow columns by the exact road: each value through its fit, none rounded, none lost."""

from __future__ import annotations

import pyarrow as pa

from app.domain.types import UUID, DataType, ListOf, MapOf, Struct
from app.engines.embedded.arrow_types import arrow_schema, arrow_type
from app.engines.embedded.text.fitting import StructFit, UnfitError
from app.engines.embedded.text.layout import clothe
from app.engines.embedded.text.names import NameClashError
from app.engines.embedded.text.values import Value


class Rows:
    """Gathers records and hands them out as tables of one schema."""

    def __init__(self, schema: Struct) -> None:
        """Prepare for a table's data columns."""
        self._schema = arrow_schema(schema)
        self._plain = [_plain_type(field.type) for field in schema.fields]
        self._fit = StructFit(schema, top=True)
        self._columns: list[list[object]] = [[] for _ in schema.fields]
        self._count = 0

    @property
    def count(self) -> int:
        """How many records wait to be taken."""
        return self._count

    def add(self, record: dict[str, Value], line: int) -> None:
        """Add a record that begins on `line`.

        Raises:
            FileError: It does not fit the schema.
            DriftError: The schema could be made to hold it.
        """
        try:
            row = self._fit.row(record)
        except (UnfitError, NameClashError) as error:
            raise error.at(line) from error
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)
        self._count += 1

    def take(self) -> pa.Table:
        """The records added since the last call, as a table."""
        arrays = [
            clothe(pa.array(values, plain), field.type)
            for values, plain, field in zip(self._columns, self._plain, self._schema, strict=True)
        ]
        table = table_of(arrays, self._schema, self._count)
        self._columns = [[] for _ in self._columns]
        self._count = 0
        return table


def table_of(arrays: list[pa.Array], schema: pa.Schema, count: int) -> pa.Table:
    """A table of `count` rows, also where it has no column."""
    if arrays:
        return pa.Table.from_arrays(arrays, schema=schema)
    return pa.table({"": pa.nulls(count)}).select([])


def _plain_type(kind: DataType) -> pa.DataType:
    """The type that Python values can be put into: extension types by their storage."""
    if kind == UUID:
        return pa.binary(16)
    if isinstance(kind, Struct):
        return pa.struct([pa.field(f.name, _plain_type(f.type)) for f in kind.fields])
    if isinstance(kind, ListOf):
        return pa.list_(_plain_type(kind.element))
    if isinstance(kind, MapOf):
        return pa.map_(_plain_type(kind.key), _plain_type(kind.value))
    return arrow_type(kind)
