from __future__ import annotations

import pytest

from app.domain.errors import Category, FileError
from app.domain.nesting import MAX_NESTING, check_nesting, is_shallow, nesting
from app.domain.types import EMPTY, LONG, STRING, UNKNOWN, DataType, Field, ListOf, MapOf, Struct


def structs(levels: int, inside: DataType = LONG) -> DataType:
    """A value within so many structs."""
    for _ in range(levels):
        inside = Struct((Field("x", inside), Field("y", STRING)))
    return inside


LEVELS: list[tuple[DataType, int]] = [
    (LONG, 0),
    (ListOf(LONG), 2),
    (structs(3), 3),
    (MapOf(STRING, LONG), 2),
    (MapOf(structs(2), LONG), 4),
    (MapOf(STRING, ListOf(structs(1))), 5),
    (ListOf(UNKNOWN), 0),
    (MapOf(STRING, UNKNOWN), 0),
    (Struct((Field("a", LONG), Field("n", ListOf(ListOf(EMPTY))))), 1),
    # More than any recursion could follow.
    (structs(5_000), 5_000),
]


@pytest.mark.parametrize(("kind", "levels"), LEVELS, ids=[f"{i}" for i in range(len(LEVELS))])
def test_levels_are_those_around_the_deepest_value(kind: DataType, levels: int) -> None:
    assert nesting(kind) == levels


def test_a_column_may_have_so_many_levels_and_not_one_more() -> None:
    check_nesting(Struct((Field("a", structs(MAX_NESTING)),)))
    with pytest.raises(FileError, match=r'Column "b" is nested 51 levels deep, and a table takes 50') as failure:
        check_nesting(Struct((Field("a", LONG), Field("b", structs(MAX_NESTING + 1)))))
    assert failure.value.category is Category.LIMIT_EXCEEDED


def test_nulls_make_no_column_and_count_only_where_they_are_asked_for() -> None:
    nulls: DataType = UNKNOWN
    for _ in range(MAX_NESTING + 1):
        nulls = ListOf(nulls)
    check_nesting(Struct((Field("a", nulls),)))
    assert not is_shallow(Struct((Field("a", nulls),)))
    assert is_shallow(Struct((Field("a", structs(MAX_NESTING)),)))
