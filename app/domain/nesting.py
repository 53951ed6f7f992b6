"""How deep a column may be nested: as deep as everything that reads and writes tables can follow. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from app.domain.errors import Category, FileError
from app.domain.types import EMPTY, UNKNOWN, DataType, ListOf, MapOf, Struct

# Arrow hands a schema over to other libraries with 64 levels at most, in which a map takes two, and pyiceberg cannot
# read metadata back that is deeper than some 70. What is said and read around a column needs a few of them as well. A
# list counts as two, because DuckDB takes twice as much for each list within a list: seconds at 25, for ever at 50.
MAX_NESTING = 50


def check_nesting(observed: Struct) -> None:
    """Do nothing where a table can have the columns of `observed`.

    Raises:
        FileError: `limit_exceeded`: one of them is nested too deep.
    """
    for field in observed.fields:
        levels = nesting(field.type)
        if levels > MAX_NESTING:
            raise FileError(
                Category.LIMIT_EXCEEDED,
                f'Column "{field.name}" is nested {levels} levels deep, and a table takes {MAX_NESTING} (a list or '
                "a map counts as two). Flatten it, or write its inner part as text that holds JSON.",
            )


def nesting(kind: DataType) -> int:
    """How many structs, lists and maps lie around the deepest value of a column; 0 for a scalar.

    A list and a map count as two. Places where nothing but nulls was seen do not count: no column comes of them.
    """
    return max((levels for leaf, levels in _leaves(kind) if leaf not in {UNKNOWN, EMPTY}), default=0)


def is_shallow(observed: Struct) -> bool:
    """Whether no column has more levels than a table takes, those around nothing but nulls counted as well."""
    return all(levels <= MAX_NESTING + 1 for _, levels in _leaves(observed))


def _leaves(kind: DataType) -> Iterator[tuple[DataType, int]]:
    """Yield what holds nothing else, with the levels around it. By no recursion: the depth may be any."""
    waiting: list[tuple[DataType, int]] = [(kind, 0)]
    while waiting:
        outer, levels = waiting.pop()
        if isinstance(outer, Struct) and outer.fields:
            waiting.extend((field.type, levels + 1) for field in outer.fields)
        elif isinstance(outer, ListOf):
            waiting.append((outer.element, levels + 2))
        elif isinstance(outer, MapOf):
            # A plain key is no deeper than the value beside it.
            waiting.extend((inner, levels + 2) for inner in (outer.key, outer.value) if _is_nested(inner))
            if not _is_nested(outer.value):
                yield outer.value, levels + 2
        else:
            yield outer, levels


def _is_nested(kind: DataType) -> bool:
    return isinstance(kind, Struct | ListOf | MapOf)
