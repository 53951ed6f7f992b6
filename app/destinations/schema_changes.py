"""Changes of an existing table's schema, as the engine's findings ask for them, and what keeps a table from us."""

from __future__ import annotations

from collections.abc import Sequence

from pyiceberg.exceptions import ValidationError
from pyiceberg.table import Transaction
from pyiceberg.table.metadata import TableMetadata

from app.destinations.schemas import from_iceberg, type_to_iceberg
from app.domain.errors import TableConflictError, TableUnsuitableError
from app.domain.evolution import AddColumn, Change
from app.domain.system_columns import system_columns
from app.domain.types import Field, Struct

NEWEST_FORMAT_VERSION = 2


def assert_suitable(metadata: TableMetadata, table: str) -> None:
    """Let pass what we can write.

    Raises:
        TableUnsuitableError: We cannot write it.
    """
    if metadata.format_version > NEWEST_FORMAT_VERSION:
        raise TableUnsuitableError(
            f"The table {table} has the format version {metadata.format_version}; "
            f"tables up to version {NEWEST_FORMAT_VERSION} can be written."
        )
    if not metadata.spec().is_unpartitioned():
        raise TableUnsuitableError(f"The table {table} is partitioned; partitioned tables cannot be written yet.")


def missing_system_columns(schema: Struct, table: str, *, provenance: bool) -> tuple[Field, ...]:
    """Our columns that `schema` lacks.

    Raises:
        TableUnsuitableError: One is there with another type.
    """
    missing = []
    for column in system_columns(provenance=provenance):
        present = schema.find(column.name)
        if present is None:
            missing.append(column)
        elif present.type != column.type:
            raise TableUnsuitableError(
                f"The column {present.name} of {table} is of type {present.type}, but we keep a {column.type} in it."
            )
    return tuple(missing)


def evolve(transaction: Transaction, changes: Sequence[Change], *, table: str, provenance: bool) -> None:
    """Stage `changes`, and our columns behind them.

    Raises:
        TableUnsuitableError: The table cannot take them.
        TableConflictError: They were planned for a schema that is not the table's any more.
    """
    schema = from_iceberg(transaction.table_metadata.schema())
    missing = missing_system_columns(schema, table, provenance=provenance)
    if not changes and not missing:
        return
    try:
        with transaction.update_schema() as update:
            for change in changes:
                if isinstance(change, AddColumn):
                    update.add_column(change.path, type_to_iceberg(change.type))
                else:
                    update.update_column(change.path, type_to_iceberg(change.new))
            for column in missing:
                update.add_column((column.name,), type_to_iceberg(column.type))
    except (ValueError, ValidationError) as error:
        # They are planned on a look at the table, and somebody made some of them since: a column is there already.
        raise TableConflictError(f"The schema of {table} was changed while this batch was being loaded.") from error
