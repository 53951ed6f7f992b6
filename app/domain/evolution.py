"""What a table's schema must become so that it can hold what was seen. Pure: two schemas in, changes out."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.types import (
    EMPTY,
    UNKNOWN,
    DataType,
    Field,
    ListOf,
    MapOf,
    Struct,
    is_promotion,
    join,
    join_structs,
    without_unknown,
)

Path = tuple[str, ...]


@dataclass(frozen=True)
class AddColumn:
    """A new column, or a new field of a nested struct. `path` ends in its name.

    Inside a path, a list's element goes by `element`, a map's value by `value`, as in Iceberg.
    """

    path: Path
    type: DataType

    def __str__(self) -> str:
        return f"add {'.'.join(self.path)} {self.type}"


@dataclass(frozen=True)
class PromoteColumn:
    """A column that takes a wider type, by one of Iceberg's promotions."""

    path: Path
    old: DataType
    new: DataType

    def __str__(self) -> str:
        return f"promote {'.'.join(self.path)} from {self.old} to {self.new}"


Change = AddColumn | PromoteColumn


def plan_changes(table: Struct, observed: Struct) -> tuple[Change, ...]:
    """The additions and promotions that let `table` hold `observed`, in column order.

    What Iceberg cannot promote is left out: a value of such a type does not fit, and its file says so when it loads.
    """
    return tuple(_struct_changes((), table, observed))


def _struct_changes(path: Path, table: Struct, observed: Struct) -> list[Change]:
    changes: list[Change] = []
    # Joined first, so that two spellings of one new name become one column.
    for field in join_structs(EMPTY, observed).fields:
        known = table.find(field.name)
        if known is None:
            kind = without_unknown(field.type)
            if kind != UNKNOWN:
                changes.append(AddColumn((*path, field.name), kind))
        else:
            changes.extend(_type_changes((*path, known.name), known.type, field.type))
    return changes


def _type_changes(path: Path, table: DataType, observed: DataType) -> list[Change]:
    if isinstance(table, Struct) and isinstance(observed, Struct):
        return _struct_changes(path, table, observed)
    if isinstance(table, ListOf) and isinstance(observed, ListOf):
        return _type_changes((*path, "element"), table.element, observed.element)
    if isinstance(table, MapOf) and isinstance(observed, MapOf):
        return _type_changes((*path, "value"), table.value, observed.value)
    wider = join(table, observed)
    return [PromoteColumn(path, table, wider)] if is_promotion(table, wider) else []


def apply_changes(table: Struct, changes: tuple[Change, ...]) -> Struct:
    """`table` with `changes` made, new fields at the end of their struct and without ids."""
    for change in changes:
        table = _apply(table, change.path, change)
    return table


def _apply(struct: Struct, path: Path, change: Change) -> Struct:
    name, rest = path[0], path[1:]
    if not rest and isinstance(change, AddColumn):
        return Struct((*struct.fields, Field(name, change.type)))
    fields = tuple(
        Field(f.name, _apply_type(f.type, rest, change), f.required, f.id) if f.name == name else f
        for f in struct.fields
    )
    return Struct(fields)


def _apply_type(kind: DataType, path: Path, change: Change) -> DataType:
    if not path:
        return change.new if isinstance(change, PromoteColumn) else kind
    if isinstance(kind, Struct):
        return _apply(kind, path, change)
    if isinstance(kind, ListOf):
        return ListOf(_apply_type(kind.element, path[1:], change), kind.element_id, kind.element_required)
    if isinstance(kind, MapOf):
        value = _apply_type(kind.value, path[1:], change)
        return MapOf(kind.key, value, kind.key_id, kind.value_id, kind.value_required)
    return kind


def extends(newer: Struct, older: Struct) -> bool:
    """Whether data files written under `older` can be read under `newer`: same ids and names, same or promoted types.

    Names count because a table that is not made yet has its ids given out anew for each draft: there the id that was
    our file path may be a data column of the same type in the next one.
    """
    by_id = {f.id: f for f in newer.fields}
    return all(
        (now := by_id.get(f.id)) is not None and now.name == f.name and _extends_type(now.type, f.type)
        for f in older.fields
    )


def _extends_type(newer: DataType, older: DataType) -> bool:
    if isinstance(newer, Struct) and isinstance(older, Struct):
        return extends(newer, older)
    if isinstance(newer, ListOf) and isinstance(older, ListOf):
        return newer.element_id == older.element_id and _extends_type(newer.element, older.element)
    if isinstance(newer, MapOf) and isinstance(older, MapOf):
        same_ids = (newer.key_id, newer.value_id) == (older.key_id, older.value_id)
        return same_ids and _extends_type(newer.key, older.key) and _extends_type(newer.value, older.value)
    return newer == older or is_promotion(older, newer)
