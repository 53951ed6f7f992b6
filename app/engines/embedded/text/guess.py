"""A schema that the rest of a file probably fits: what does fit it shows nothing new."""

from __future__ import annotations

from dataclasses import replace

from app.domain.evolution import AddColumn, apply_changes, plan_changes
from app.domain.types import INT, DataType, ListOf, MapOf, Struct


def guess_schema(schema: Struct, observed: Struct) -> Struct:
    """`schema` with what was `observed`, so that data which fits it would be observed as no more than that.

    The one promotion that keeps this true is int to long: a wider float or decimal would also take values of other
    types than were seen.
    """
    changes = plan_changes(schema, observed)
    safe = tuple(c for c in changes if isinstance(c, AddColumn) or c.old == INT)
    return _relaxed_struct(apply_changes(schema, safe))


def _relaxed_struct(kind: Struct) -> Struct:
    """Without requirements: what is missing is no type."""
    return Struct(tuple(replace(f, type=_relaxed(f.type), required=False) for f in kind.fields))


def _relaxed(kind: DataType) -> DataType:
    if isinstance(kind, Struct):
        return _relaxed_struct(kind)
    if isinstance(kind, ListOf):
        return replace(kind, element=_relaxed(kind.element), element_required=False)
    if isinstance(kind, MapOf):
        return replace(kind, value=_relaxed(kind.value), value_required=False)
    return kind
