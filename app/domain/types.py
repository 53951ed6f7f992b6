"""The types of columns and how they join: Iceberg's types, and one more for "nothing seen yet".

Joins only ever go upward, so that the order in which files are seen does not matter to what can be held.
Source of the table: the page `docs/reference/types.md`, which a test holds against this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeAlias

MAX_DECIMAL_DIGITS = 38


@dataclass(frozen=True)
class Primitive:
    """A type without parameters, by its Iceberg name."""

    name: str

    def __str__(self) -> str:
        return self.name


BOOLEAN = Primitive("boolean")
INT = Primitive("int")
LONG = Primitive("long")
FLOAT = Primitive("float")
DOUBLE = Primitive("double")
DATE = Primitive("date")
TIME = Primitive("time")
TIMESTAMP = Primitive("timestamp")
TIMESTAMPTZ = Primitive("timestamptz")
STRING = Primitive("string")
UUID = Primitive("uuid")
BINARY = Primitive("binary")
# Only nulls (or nothing) seen: no column until a value shows its type. Never part of a table.
UNKNOWN = Primitive("unknown")

PRIMITIVES = {
    t.name: t for t in (BOOLEAN, INT, LONG, FLOAT, DOUBLE, DATE, TIME, TIMESTAMP, TIMESTAMPTZ, STRING, UUID, BINARY)
}


@dataclass(frozen=True)
class Decimal:
    """An exact number of `precision` digits, `scale` of them behind the point."""

    precision: int
    scale: int

    def __str__(self) -> str:
        return f"decimal({self.precision}, {self.scale})"


@dataclass(frozen=True)
class Fixed:
    """Bytes of one length."""

    length: int

    def __str__(self) -> str:
        return f"fixed[{self.length}]"


@dataclass(frozen=True)
class Field:
    """A column, or a field of a struct. `id` is the Iceberg field id, None where no table has it yet."""

    name: str
    type: DataType
    required: bool = False
    id: int | None = None


@dataclass(frozen=True)
class Struct:
    """Named fields in order; also a whole table's schema."""

    fields: tuple[Field, ...] = ()

    def __str__(self) -> str:
        return "struct<" + ", ".join(f"{f.name}: {f.type}" for f in self.fields) + ">"

    def find(self, name: str) -> Field | None:
        """The field of that name: the exact spelling first, else the first one that differs in case only."""
        folded = name.lower()
        candidate = None
        for field in self.fields:
            if field.name == name:
                return field
            if candidate is None and field.name.lower() == folded:
                candidate = field
        return candidate


@dataclass(frozen=True)
class ListOf:
    """A list of one element type."""

    element: DataType
    element_id: int | None = None
    element_required: bool = False

    def __str__(self) -> str:
        return f"list<{self.element}>"


@dataclass(frozen=True)
class MapOf:
    """A map from one key type to one value type."""

    key: DataType
    value: DataType
    key_id: int | None = None
    value_id: int | None = None
    value_required: bool = False

    def __str__(self) -> str:
        return f"map<{self.key}, {self.value}>"


DataType: TypeAlias = Primitive | Decimal | Fixed | Struct | ListOf | MapOf

EMPTY = Struct()


def join(a: DataType, b: DataType) -> DataType:
    """The narrowest type that holds what both hold; string where nothing narrower does.

    Commutative but for the order and spelling of struct fields, which follow `a`.
    """
    if a == b or b == UNKNOWN:
        return a
    if a == UNKNOWN:
        return b
    if isinstance(a, Struct) and isinstance(b, Struct):
        return join_structs(a, b)
    if isinstance(a, ListOf) and isinstance(b, ListOf):
        return ListOf(join(a.element, b.element))
    if isinstance(a, MapOf) and isinstance(b, MapOf):
        return MapOf(join(a.key, b.key), join(a.value, b.value))
    return _join_numbers(a, b) or STRING


def join_structs(a: Struct, b: Struct) -> Struct:
    """All fields of both, `a`'s first, matched without regard to case. None is required: one of the two may lack it."""
    joined = {f.name.lower(): replace(f, required=False) for f in reversed(a.fields)}
    order = [f.name.lower() for f in a.fields]
    for field in b.fields:
        folded = field.name.lower()
        known = joined.get(folded)
        if known is None:
            order.append(folded)
            joined[folded] = replace(field, required=False, id=None)
        else:
            joined[folded] = replace(known, type=join(known.type, field.type))
    return Struct(tuple(joined[name] for name in dict.fromkeys(order)))


def mixed_columns(a: Struct, b: Struct) -> Iterator[tuple[str, ...]]:
    """Yield the paths at which the two only meet in a string, although not both hold text.

    A date or timestamp beside text counts as text: it was text in its file.
    """
    for field in b.fields:
        known = a.find(field.name)
        if known is not None:
            yield from _mixed((known.name,), known.type, field.type)


def _mixed(path: tuple[str, ...], a: DataType, b: DataType) -> Iterator[tuple[str, ...]]:
    if isinstance(a, Struct) and isinstance(b, Struct):
        yield from ((*path, *rest) for rest in mixed_columns(a, b))
    elif isinstance(a, ListOf) and isinstance(b, ListOf):
        yield from _mixed((*path, "element"), a.element, b.element)
    elif is_mixture({a, b}):
        yield path


def is_mixture(kinds: set[DataType]) -> bool:
    """Whether values of these types only meet in a string, and not all of them are text in their files."""
    if STRING in kinds:
        return bool(kinds - {STRING, UNKNOWN, DATE, TIME, TIMESTAMP, TIMESTAMPTZ})
    nothing: DataType = UNKNOWN
    return reduce(join, kinds, nothing) == STRING


def mixture_warning(path: tuple[str, ...]) -> str:
    """What people are told of a column that mixes types; the same words each time, so that it is said once."""
    column = ".".join(path)
    return f'Column "{column}" mixes types, so it is a string: each value as it stands in its file.'


def _join_numbers(a: DataType, b: DataType) -> DataType | None:
    names = {str(a), str(b)}
    if names == {"int", "long"}:
        return LONG
    if names <= {"int", "long", "float", "double"}:
        # A 32-bit float holds no 32-bit integer exactly, so the two meet in a double.
        return DOUBLE
    left, right = _as_decimal(a), _as_decimal(b)
    if left is None or right is None:
        return None
    scale = max(left.scale, right.scale)
    precision = max(left.precision - left.scale, right.precision - right.scale) + scale
    return Decimal(precision, scale) if precision <= MAX_DECIMAL_DIGITS else None


def _as_decimal(kind: DataType) -> Decimal | None:
    if isinstance(kind, Decimal):
        return kind
    digits = {"int": 10, "long": 19}.get(str(kind))
    return None if digits is None else Decimal(digits, 0)


def is_promotion(old: DataType, new: DataType) -> bool:
    """Whether Iceberg lets a column of type `old` become `new` without touching its data files."""
    if isinstance(old, Decimal) and isinstance(new, Decimal):
        return new.scale == old.scale and new.precision > old.precision
    return (str(old), str(new)) in {("int", "long"), ("float", "double")}


def without_unknown(kind: DataType) -> DataType:
    """The type without what only nulls were seen of; UNKNOWN when nothing is left.

    An empty struct, and a list of nothing, are not columns until a value shows their type.
    """
    if isinstance(kind, Struct):
        fields = tuple(replace(f, type=t) for f in kind.fields if (t := without_unknown(f.type)) != UNKNOWN)
        return Struct(fields) if fields else UNKNOWN
    if isinstance(kind, ListOf):
        element = without_unknown(kind.element)
        return UNKNOWN if element == UNKNOWN else replace(kind, element=element)
    if isinstance(kind, MapOf):
        value = without_unknown(kind.value)
        return UNKNOWN if value == UNKNOWN else replace(kind, value=value)
    return kind
