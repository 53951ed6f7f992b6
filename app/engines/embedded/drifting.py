"""What it means that a file needs another schema than the table has. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.errors import Category, FileError
from app.domain.evolution import AddColumn, Change, apply_changes, left_out, plan_changes
from app.domain.nesting import check_nesting
from app.domain.types import Struct

MAX_SHOWN = 5


def drift_failure(columns: Struct, observed: Struct, *, report_drift: bool) -> FileError | None:
    """Why a file fails that was left out because of what it holds; None where the table is to be changed for it.

    Args:
        columns: The table's data columns.
        observed: What the file holds that they do not.
        report_drift: Whether the table may be changed at all.
    """
    changes = plan_changes(columns, observed)
    if not changes:
        # The same schema would come back for ever.
        return _name_taken([f.name for f in observed.fields])
    if report_drift:
        return None
    wanted = "; ".join(map(str, changes[:MAX_SHOWN])) + ("; …" if len(changes) > MAX_SHOWN else "")
    return FileError(Category.SCHEMA_MISMATCH, f"The file needs what the table does not have: {wanted}.")


def check_changes(columns: Struct, changes: tuple[Change, ...], observed: Struct) -> None:
    """Do nothing where a table can have what a file holds.

    Args:
        columns: The table's data columns.
        changes: What they need for the file.
        observed: What the file holds.

    Raises:
        FileError: `limit_exceeded`: a column would be nested too deep. `schema_mismatch`: there is no place for one.
    """
    grown = {change.path[0].lower() for change in changes if isinstance(change, AddColumn)}
    check_nesting(Struct(tuple(f for f in observed.fields if f.name.lower() in grown)))
    lost = list(left_out(apply_changes(columns, changes), observed))
    keys = [".".join(field.path) for field in lost if field.in_key]
    if keys:
        raise FileError(
            Category.SCHEMA_MISMATCH,
            f'The keys of a map have a field that the table does not have ("{keys[0]}"), and keys take no new fields. '
            "Load the file into another table, or write the map as a list of structs.",
        )
    if lost:
        raise _name_taken([".".join(field.path) for field in lost])


def _name_taken(columns: Sequence[str]) -> FileError:
    names = ", ".join(f'"{name}"' for name in columns[:MAX_SHOWN])
    message = (
        f"The table cannot take a column of this file ({names}): its name is taken, "
        "perhaps by a field inside a struct, such as a.b beside the field b of a."
    )
    return FileError(Category.SCHEMA_MISMATCH, message)
