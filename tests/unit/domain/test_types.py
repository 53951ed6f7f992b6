from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import types
from app.domain.types import (
    BINARY,
    BOOLEAN,
    DATE,
    DOUBLE,
    EMPTY,
    FLOAT,
    INT,
    LONG,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UNKNOWN,
    UUID,
    DataType,
    Decimal,
    Field,
    Fixed,
    ListOf,
    MapOf,
    Struct,
    is_promotion,
    join,
    join_structs,
    without_unknown,
)

LEAVES = [*types.PRIMITIVES.values(), UNKNOWN, Fixed(4), Fixed(8)]
DECIMALS = st.integers(1, 38).flatmap(lambda p: st.integers(0, p).map(lambda s: Decimal(p, s)))
NAMES = st.sampled_from(["a", "A", "b", "é", "É", "c.d"])


def _struct(kinds: dict[str, DataType]) -> Struct:
    """No two names that differ in case only: no record that was read has them."""
    fields = {name.lower(): Field(name, kind) for name, kind in kinds.items()}
    return Struct(tuple(fields.values()))


KINDS: st.SearchStrategy[DataType] = st.recursive(
    st.one_of(st.sampled_from(LEAVES), DECIMALS),
    lambda inner: st.one_of(
        inner.map(ListOf),
        st.tuples(st.sampled_from([STRING, LONG]), inner).map(lambda kv: MapOf(*kv)),
        st.dictionaries(NAMES, inner, max_size=4).map(_struct),
    ),
    max_leaves=8,
)


def plain(kind: DataType) -> DataType:
    """`kind` without what joins do not promise: the order and spelling of fields."""
    if isinstance(kind, Struct):
        fields = (Field(f.name.lower(), plain(f.type)) for f in kind.fields)
        return Struct(tuple(sorted(fields, key=lambda f: f.name)))
    if isinstance(kind, ListOf):
        return ListOf(plain(kind.element))
    if isinstance(kind, MapOf):
        return MapOf(plain(kind.key), plain(kind.value))
    return kind


@pytest.mark.parametrize(
    ("a", "b", "joined"),
    [
        (LONG, LONG, LONG),
        (UNKNOWN, LONG, LONG),
        (UNKNOWN, UNKNOWN, UNKNOWN),
        (INT, LONG, LONG),
        (INT, FLOAT, DOUBLE),
        (LONG, DOUBLE, DOUBLE),
        (FLOAT, DOUBLE, DOUBLE),
        (LONG, Decimal(38, 0), Decimal(38, 0)),
        (INT, Decimal(5, 2), Decimal(12, 2)),
        (LONG, Decimal(5, 2), Decimal(21, 2)),
        (Decimal(10, 2), Decimal(8, 4), Decimal(12, 4)),
        (Decimal(38, 0), Decimal(38, 10), STRING),
        (Decimal(38, 0), DOUBLE, STRING),
        (BOOLEAN, LONG, STRING),
        (DATE, TIMESTAMP, STRING),
        (TIMESTAMP, TIMESTAMPTZ, STRING),
        (TIME, STRING, STRING),
        (UUID, BINARY, STRING),
        (Fixed(4), Fixed(8), STRING),
        (ListOf(LONG), ListOf(DOUBLE), ListOf(DOUBLE)),
        (ListOf(UNKNOWN), ListOf(STRING), ListOf(STRING)),
        (ListOf(LONG), LONG, STRING),
        (EMPTY, ListOf(LONG), STRING),
        (MapOf(STRING, LONG), MapOf(STRING, DOUBLE), MapOf(STRING, DOUBLE)),
        (MapOf(STRING, LONG), Struct((Field("a", LONG),)), STRING),
    ],
)
def test_join_is_the_table_of_the_reference(a: DataType, b: DataType, joined: DataType) -> None:
    assert join(a, b) == joined
    assert join(b, a) == joined


@given(KINDS, KINDS)
def test_join_does_not_mind_which_file_came_first(a: DataType, b: DataType) -> None:
    assert plain(join(a, b)) == plain(join(b, a))


@given(KINDS, KINDS, KINDS)
def test_join_does_not_mind_how_files_are_grouped(a: DataType, b: DataType, c: DataType) -> None:
    assert plain(join(join(a, b), c)) == plain(join(a, join(b, c)))


@given(KINDS, KINDS)
def test_what_was_joined_once_holds_both_for_good(a: DataType, b: DataType) -> None:
    joined = join(a, b)
    assert plain(join(joined, a)) == plain(joined)
    assert plain(join(b, joined)) == plain(joined)


def test_fields_keep_the_order_and_spelling_of_the_first() -> None:
    first = Struct((Field("Id", INT, id=1), Field("x", STRING, id=2)))
    joined = join_structs(first, Struct((Field("y", DATE, id=9), Field("ID", LONG, id=7))))
    assert joined == Struct((Field("Id", LONG, id=1), Field("x", STRING, id=2), Field("y", DATE)))


def test_a_field_that_one_of_the_two_lacks_is_not_required() -> None:
    required = Struct((Field("a", LONG, required=True),))
    assert join_structs(required, EMPTY) == join_structs(EMPTY, required) == Struct((Field("a", LONG),))


@pytest.mark.parametrize(
    ("old", "new"), [(INT, LONG), (FLOAT, DOUBLE), (Decimal(5, 2), Decimal(6, 2)), (Decimal(1, 1), Decimal(38, 1))]
)
def test_promotions_are_icebergs(old: DataType, new: DataType) -> None:
    assert is_promotion(old, new)
    assert not is_promotion(new, old)
    assert join(old, new) == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (LONG, DOUBLE),
        (INT, DOUBLE),
        (LONG, STRING),
        (LONG, LONG),
        (Decimal(5, 2), Decimal(5, 2)),
        (Decimal(5, 2), Decimal(9, 3)),
        (LONG, Decimal(38, 0)),
        (DATE, TIMESTAMP),
    ],
)
def test_nothing_else_is_a_promotion(old: DataType, new: DataType) -> None:
    assert not is_promotion(old, new)


def test_find_takes_the_exact_spelling_first() -> None:
    schema = Struct((Field("ab", LONG), Field("AB", STRING), Field("Straße", DATE)))
    assert schema.find("AB") == Field("AB", STRING)
    assert schema.find("aB") == Field("ab", LONG)
    assert schema.find("none") is None


def test_without_unknown_leaves_only_what_showed_its_type() -> None:
    seen = Struct(
        (
            Field("nulls", UNKNOWN),
            Field("empty", EMPTY),
            Field("nothing", ListOf(UNKNOWN)),
            Field("map", MapOf(STRING, UNKNOWN)),
            Field("deep", Struct((Field("a", LONG), Field("b", ListOf(EMPTY))))),
        )
    )
    assert without_unknown(seen) == Struct((Field("deep", Struct((Field("a", LONG),))),))
    assert without_unknown(Struct((Field("x", UNKNOWN),))) == UNKNOWN
    assert without_unknown(UNKNOWN) == UNKNOWN


@given(KINDS)
def test_without_unknown_leaves_no_unknown(kind: DataType) -> None:
    left = without_unknown(kind)
    assert left == UNKNOWN or UNKNOWN not in _leaves(left)


def _leaves(kind: DataType) -> list[DataType]:
    if isinstance(kind, Struct):
        return [leaf for f in kind.fields for leaf in _leaves(f.type)]
    if isinstance(kind, ListOf):
        return _leaves(kind.element)
    if isinstance(kind, MapOf):
        return [*_leaves(kind.key), *_leaves(kind.value)]
    return [kind]


def test_types_are_written_as_iceberg_does() -> None:
    kind = Struct((Field("a", ListOf(Decimal(5, 2))), Field("m", MapOf(STRING, Fixed(3)))))
    assert str(kind) == "struct<a: list<decimal(5, 2)>, m: map<string, fixed[3]>>"
    assert str(replace(kind, fields=())) == "struct<>"
