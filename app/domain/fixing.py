"""What of an ingestion is fixed once it has loaded. Pure: two definitions in, the fields that differ out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.definition import SERVICE_FIELDS

# Its samples are read when the table is made, and never after.
_FOR_A_NEW_TABLE = ("format.schema.sample_bytes",)
_FIXED = tuple(f for f in SERVICE_FIELDS if f.path.startswith("destination.") or f.path in _FOR_A_NEW_TABLE)


def changed_fixed_fields(
    table: str, document: Mapping[str, Any], *, wanted_table: str, wanted: Mapping[str, Any]
) -> list[str]:
    """Paths of the fields in which the two differ of those that only count when the table is made.

    Args:
        table: The full name of the table, whatever the document leaves out of it.
        document: The definition, in the contract's form. What is missing has its default.
        wanted_table: The full name of the other table.
        wanted: The other definition.
    """
    names = zip(("catalog", "database", "table"), _parts(table), _parts(wanted_table), strict=True)
    moved = [f"destination.{name}" for name, one, other in names if one != other]
    return moved + [f.path for f in _FIXED if _value(document, f.path, f.default) != _value(wanted, f.path, f.default)]


def _parts(table: str) -> tuple[str, str, str]:
    """Catalog, database and table; only the database's name may have dots."""
    catalog, _, rest = table.partition(".")
    database, _, name = rest.rpartition(".")
    return catalog, database, name


def _value(document: Mapping[str, Any], path: str, default: Any) -> Any:  # noqa: ANN401 - a value of any field
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return default if value is None else value
