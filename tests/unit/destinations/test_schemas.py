"""Types of ours and of Iceberg, there and back."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.types import NestedField, TimestampNanoType

from app.destinations.schemas import from_iceberg, to_iceberg, type_to_iceberg
from app.domain.types import PRIMITIVES, UNKNOWN, DataType, Decimal, Field, Fixed, ListOf, MapOf, Primitive, Struct

LEAVES: st.SearchStrategy[DataType] = st.one_of(
    st.sampled_from(list(PRIMITIVES.values())),
    st.integers(1, 38).flatmap(lambda p: st.builds(Decimal, st.just(p), st.integers(0, p))),
    st.builds(Fixed, st.integers(1, 16)),
)


def structs(kinds: st.SearchStrategy[DataType]) -> st.SearchStrategy[Struct]:
    names = st.lists(st.text("ab é", min_size=1), min_size=1, max_size=3, unique_by=str.lower)
    return names.flatmap(
        lambda ns: st.tuples(*(st.builds(Field, st.just(n), kinds, st.booleans()) for n in ns)).map(Struct)
    )


KINDS = st.recursive(
    LEAVES,
    lambda kinds: st.one_of(
        st.builds(ListOf, kinds, st.none(), st.booleans()),
        st.builds(MapOf, LEAVES, kinds, st.none(), st.none(), st.booleans()),
        structs(kinds),
    ),
    max_leaves=6,
)


def without_ids(kind: DataType) -> DataType:
    match kind:
        case Struct():
            return Struct(tuple(Field(f.name, without_ids(f.type), f.required) for f in kind.fields))
        case ListOf():
            return ListOf(without_ids(kind.element), None, kind.element_required)
        case MapOf():
            return MapOf(without_ids(kind.key), without_ids(kind.value), None, None, kind.value_required)
    return kind


# A name with a dot, which drawn ones would have beside a field of a struct some day: Iceberg cannot hold both.
@example(Struct((Field("a.b", PRIMITIVES["string"]), Field("a", Struct((Field("c", PRIMITIVES["int"]),))))))
@given(structs(KINDS))
def test_every_schema_comes_back_as_it_was(struct: Struct) -> None:
    schema = to_iceberg(struct)
    assert without_ids(from_iceberg(schema)) == struct
    assert len(set(schema._lazy_id_to_parent) | {f.field_id for f in schema.fields}) == schema.highest_field_id
    assert without_ids(from_iceberg(assign_fresh_schema_ids(schema))) == struct


def test_unknown_is_no_column() -> None:
    with pytest.raises(ValueError, match="unknown"):
        type_to_iceberg(ListOf(UNKNOWN))


def test_a_type_of_a_later_format_keeps_its_name() -> None:
    assert from_iceberg(Schema(NestedField(1, "t", TimestampNanoType()))).fields[0].type == Primitive("timestamp_ns")
