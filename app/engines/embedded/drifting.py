"""What it means that a file needs another schema than the table has. Pure."""

from __future__ import annotations

from app.domain.errors import Category, FileError
from app.domain.evolution import AddColumn, Change, plan_changes
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
        names = ", ".join(f'"{f.name}"' for f in observed.fields[:MAX_SHOWN])
        message = (
            f"The table cannot take a column of this file ({names}): its name is taken, "
            "perhaps by a field inside a struct, such as a.b beside the field b of a."
        )
        return FileError(Category.SCHEMA_MISMATCH, message)
    if report_drift:
        return None
    wanted = "; ".join(map(str, changes[:MAX_SHOWN])) + ("; …" if len(changes) > MAX_SHOWN else "")
    return FileError(Category.SCHEMA_MISMATCH, f"The file needs what the table does not have: {wanted}.")


def check_changes(changes: tuple[Change, ...], observed: Struct) -> None:
    """Do nothing where a table can have what `changes` add to it.

    Args:
        changes: What the table needs for the file.
        observed: What the file holds.

    Raises:
        FileError: `limit_exceeded`: a column would be nested too deep.
    """
    grown = {change.path[0].lower() for change in changes if isinstance(change, AddColumn)}
    check_nesting(Struct(tuple(f for f in observed.fields if f.name.lower() in grown)))
