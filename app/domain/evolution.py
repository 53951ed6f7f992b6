"""What a table's schema must become so that it can hold what was seen. Pure: two schemas in, changes out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

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

    What Iceberg cannot promote is left out, and so is a column whose dotted name is taken, such as `a.b` beside the
    field `b` of a struct `a`: a value of such a type or name does not fit, and its file says so when it loads.
    """
    taken = set(_dotted(table, ""))
    changes: list[Change] = []
    for change in _struct_changes((), table, observed):
        if isinstance(change, AddColumn):
            kind = _without_clashes(change.type, ".".join(change.path), taken)
            if kind is not None:
                changes.append(AddColumn(change.path, kind))
        else:
            changes.append(change)
    return tuple(changes)


def without_clashes(schema: Struct) -> Struct:
    """`schema` without the fields whose dotted names are taken by one before them: Iceberg tells fields by those."""
    kind = _without_clashes(schema, "", set())
    return kind if isinstance(kind, Struct) else EMPTY


def _without_clashes(kind: DataType, name: str, taken: set[str]) -> DataType | None:
    """The type as the column `name`; None where that name is taken, or nothing of it is left."""
    if name:
        if name.lower() in taken:
            return None
        taken.add(name.lower())
    if isinstance(kind, Struct):
        fields = [(f, _without_clashes(f.type, _below(name, f.name), taken)) for f in kind.fields]
        left = tuple(replace(f, type=inner) for f, inner in fields if inner is not None)
        return Struct(left) if left or not kind.fields else None
    if isinstance(kind, ListOf):
        element = _without_clashes(kind.element, _below(name, "element"), taken)
        return None if element is None else replace(kind, element=element)
    if isinstance(kind, MapOf):
        key = _without_clashes(kind.key, _below(name, "key"), taken)
        value = _without_clashes(kind.value, _below(name, "value"), taken)
        return None if key is None or value is None else replace(kind, key=key, value=value)
    return kind


def _below(name: str, inner: str) -> str:
    return f"{name}.{inner}" if name else inner


def _dotted(kind: DataType, name: str) -> Iterator[str]:
    """The dotted names, in lower case, of everything from here on down."""
    if name:
        yield name.lower()
    if isinstance(kind, Struct):
        for field in kind.fields:
            yield from _dotted(field.type, _below(name, field.name))
    elif isinstance(kind, ListOf):
        yield from _dotted(kind.element, _below(name, "element"))
    elif isinstance(kind, MapOf):
        yield from _dotted(kind.key, _below(name, "key"))
        yield from _dotted(kind.value, _below(name, "value"))


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


@dataclass(frozen=True)
class LeftOut:
    """A field that a table does not have and cannot get; `in_key` says that it belongs to the keys of a map."""

    path: Path
    in_key: bool


def left_out(table: Struct, observed: Struct) -> Iterator[LeftOut]:
    """Yield what of `observed` has no place in `table`, which has all changes that it can get: it would be lost.

    Where only nulls were seen, nothing would be. What the table keeps as text has its place there.
    """
    known = without_unknown(observed)
    if isinstance(known, Struct):
        yield from _fields_left_out(table, known, (), in_key=False)


def _fields_left_out(table: Struct, observed: Struct, path: Path, *, in_key: bool) -> Iterator[LeftOut]:
    # As Struct.find has it, but once for all: a table may be wide.
    exact = {field.name: field for field in table.fields}
    folded = {field.name.lower(): field for field in reversed(table.fields)}
    for field in observed.fields:
        known = exact.get(field.name) or folded.get(field.name.lower())
        if known is None:
            yield LeftOut((*path, field.name), in_key)
        else:
            yield from _left_out(known.type, field.type, (*path, known.name), in_key=in_key)


def _left_out(table: DataType, observed: DataType, path: Path, *, in_key: bool) -> Iterator[LeftOut]:
    if isinstance(table, Struct) and isinstance(observed, Struct):
        yield from _fields_left_out(table, observed, path, in_key=in_key)
    elif isinstance(table, ListOf) and isinstance(observed, ListOf):
        yield from _left_out(table.element, observed.element, (*path, "element"), in_key=in_key)
    elif isinstance(table, MapOf) and isinstance(observed, MapOf):
        yield from _left_out(table.key, observed.key, (*path, "key"), in_key=True)
        yield from _left_out(table.value, observed.value, (*path, "value"), in_key=in_key)


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
