from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from app.domain.evolution import AddColumn, LeftOut, PromoteColumn, apply_changes, extends, left_out, plan_changes
from app.domain.system_columns import system_columns
from app.domain.types import (
    DOUBLE,
    EMPTY,
    FLOAT,
    INT,
    LONG,
    STRING,
    TIMESTAMPTZ,
    UNKNOWN,
    Decimal,
    Field,
    ListOf,
    MapOf,
    Struct,
    join_structs,
)
from tests.unit.domain.test_types import KINDS

NESTED = Struct(
    (
        Field("id", INT, id=1),
        Field("Tags", ListOf(Struct((Field("k", FLOAT, id=4),)), element_id=3), id=2),
        Field("props", MapOf(STRING, Struct((Field("v", Decimal(5, 2), id=8),)), key_id=6, value_id=7), id=5),
        Field("matrix", ListOf(ListOf(INT, element_id=11), element_id=10), id=9),
    )
)


def test_additions_and_promotions_are_found_at_every_depth() -> None:
    observed = Struct(
        (
            Field("ID", LONG),
            Field("tags", ListOf(Struct((Field("k", DOUBLE), Field("new", STRING))))),
            Field("props", MapOf(STRING, Struct((Field("v", Decimal(9, 2)), Field("w", LONG))))),
            Field("matrix", ListOf(ListOf(LONG))),
            Field("extra", Struct((Field("a", LONG), Field("b", UNKNOWN)))),
        )
    )
    assert plan_changes(NESTED, observed) == (
        PromoteColumn(("id",), INT, LONG),
        PromoteColumn(("Tags", "element", "k"), FLOAT, DOUBLE),
        AddColumn(("Tags", "element", "new"), STRING),
        PromoteColumn(("props", "value", "v"), Decimal(5, 2), Decimal(9, 2)),
        AddColumn(("props", "value", "w"), LONG),
        PromoteColumn(("matrix", "element", "element"), INT, LONG),
        AddColumn(("extra",), Struct((Field("a", LONG),))),
    )


def test_changes_that_are_made_leave_nothing_to_change_and_keep_every_id() -> None:
    observed = Struct(
        (
            Field("id", LONG),
            Field("tags", ListOf(Struct((Field("new", STRING),)))),
            Field("props", MapOf(STRING, Struct((Field("w", LONG),)))),
            Field("matrix", ListOf(ListOf(LONG))),
        )
    )
    changed = apply_changes(NESTED, plan_changes(NESTED, observed))
    assert plan_changes(changed, observed) == ()
    assert extends(changed, NESTED)
    assert not extends(NESTED, changed)
    tags = changed.find("Tags")
    assert tags == Field("Tags", ListOf(Struct((Field("k", FLOAT, id=4), Field("new", STRING))), element_id=3), id=2)


@pytest.mark.parametrize(
    ("table", "observed"),
    [(LONG, STRING), (LONG, DOUBLE), (STRING, LONG), (DOUBLE, LONG), (LONG, INT), (STRING, EMPTY), (LONG, UNKNOWN)],
)
def test_what_iceberg_cannot_promote_is_no_change(table: object, observed: object) -> None:
    assert plan_changes(Struct((Field("a", table),)), Struct((Field("a", observed),))) == ()  # type: ignore[arg-type]


def test_columns_of_nulls_only_are_not_added() -> None:
    observed = Struct((Field("n", UNKNOWN), Field("e", EMPTY), Field("l", ListOf(UNKNOWN))))
    assert plan_changes(EMPTY, observed) == ()


def test_two_spellings_of_a_new_name_are_one_column() -> None:
    observed = Struct((Field("Foo", INT), Field("foo", LONG)))
    assert plan_changes(EMPTY, observed) == (AddColumn(("Foo",), LONG),)


@given(KINDS, KINDS)
def test_after_its_changes_a_table_wants_none_for_the_same(a: object, b: object) -> None:
    table = join_structs(EMPTY, a) if isinstance(a, Struct) else Struct((Field("x", a),))  # type: ignore[arg-type]
    observed = b if isinstance(b, Struct) else Struct((Field("x", b),))  # type: ignore[arg-type]
    changed = apply_changes(table, plan_changes(table, observed))
    assert plan_changes(changed, observed) == ()


def test_changes_say_what_they_do() -> None:
    assert str(AddColumn(("a", "b"), LONG)) == "add a.b long"
    assert str(PromoteColumn(("a",), INT, LONG)) == "promote a from int to long"


def test_a_dropped_or_narrowed_field_cannot_be_read() -> None:
    wide = replace(NESTED, fields=(Field("id", LONG, id=1), *NESTED.fields[1:]))
    assert extends(wide, NESTED)
    assert not extends(NESTED, wide)
    assert not extends(Struct(NESTED.fields[1:]), NESTED)


def test_other_ids_inside_lists_and_maps_cannot_be_read() -> None:
    for name, kind in (("l", ListOf(INT, element_id=2)), ("m", MapOf(STRING, INT, key_id=2, value_id=3))):
        other = replace(kind, **{"element_id" if name == "l" else "value_id": 9})  # type: ignore[arg-type]
        assert extends(Struct((Field(name, kind, id=1),)), Struct((Field(name, kind, id=1),)))
        assert not extends(Struct((Field(name, other, id=1),)), Struct((Field(name, kind, id=1),)))


@pytest.mark.parametrize("provenance", [True, False])
def test_an_id_that_was_a_system_column_before_cannot_be_read_as_data(*, provenance: bool) -> None:
    """A table that is not made yet has its ids given out anew: new columns push ours behind them."""
    ours = system_columns(provenance=provenance)
    new = (Field("y", STRING), Field("z", TIMESTAMPTZ), Field("w", STRING), Field("v", STRING))[: len(ours) or 1]
    before = Struct(tuple(replace(f, id=i) for i, f in enumerate((Field("x", LONG), *ours), start=1)))
    fields = (Field("x", LONG), *new[: 3 if provenance else 1], *ours)
    after = Struct(tuple(replace(f, id=i) for i, f in enumerate(fields, start=1)))
    assert [f.type for f in after.fields[: len(before.fields)]] == [f.type for f in before.fields]
    assert not extends(after, before)


def test_what_has_no_place_is_told_at_every_depth() -> None:
    key = Struct((Field("k", LONG),))
    table = Struct((Field("a.b", LONG), Field("L", ListOf(Struct((Field("x", LONG),)))), Field("m", MapOf(key, LONG))))
    observed = Struct(
        (
            Field("A.B", LONG),
            Field("a", Struct((Field("b", LONG),))),
            Field("l", ListOf(Struct((Field("X", LONG), Field("y", STRING), Field("n", UNKNOWN))))),
            Field("m", MapOf(Struct((*key.fields, Field("new", LONG))), LONG)),
            Field("nulls", UNKNOWN),
        )
    )
    assert list(left_out(table, observed)) == [
        LeftOut(("a",), in_key=False),
        LeftOut(("L", "element", "y"), in_key=False),
        LeftOut(("m", "key", "new"), in_key=True),
    ]
    assert not list(left_out(table, Struct((Field("n", UNKNOWN),))))
    assert not list(left_out(Struct((Field("t", STRING),)), Struct((Field("t", key),))))
