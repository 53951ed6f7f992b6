from __future__ import annotations

import pyarrow as pa
import pytest

from app.domain.types import (
    BINARY,
    BOOLEAN,
    DATE,
    DOUBLE,
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
)
from app.engines.embedded.arrow_types import arrow_field, arrow_schema, arrow_type, domain_type

EVERY_TYPE: list[DataType] = [
    BOOLEAN,
    INT,
    LONG,
    FLOAT,
    DOUBLE,
    DATE,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    STRING,
    UUID,
    BINARY,
    UNKNOWN,
    Decimal(38, 0),
    Decimal(12, 2),
    Fixed(7),
    ListOf(LONG),
    MapOf(STRING, ListOf(DATE)),
    Struct((Field("a b", LONG), Field("ä", Struct((Field("c", UUID),))))),
]


@pytest.mark.parametrize("kind", EVERY_TYPE, ids=str)
def test_every_type_comes_back_as_it_went(kind: DataType) -> None:
    assert domain_type(arrow_type(kind)) == kind


@pytest.mark.parametrize(
    ("arrow", "expected"),
    [
        (pa.int8(), INT),
        (pa.uint16(), INT),
        (pa.uint32(), LONG),
        (pa.uint64(), Decimal(20, 0)),
        (pa.float16(), FLOAT),
        (pa.decimal256(39, 2), STRING),
        (pa.decimal256(38, 2), Decimal(38, 2)),
        (pa.decimal128(5, -2), Decimal(7, 0)),
        (pa.timestamp("ns"), TIMESTAMP),
        (pa.timestamp("s", tz="Europe/Rome"), TIMESTAMPTZ),
        (pa.date64(), DATE),
        (pa.time32("s"), TIME),
        (pa.dictionary(pa.int8(), pa.large_string()), STRING),
        (pa.run_end_encoded(pa.int32(), pa.int64()), LONG),
        (pa.string_view(), STRING),
        (pa.binary_view(), BINARY),
        (pa.large_binary(), BINARY),
        (pa.large_list(pa.int64()), ListOf(LONG)),
        (pa.list_(pa.int64(), 3), ListOf(LONG)),
        (pa.list_view(pa.int64()), ListOf(LONG)),
        (pa.duration("us"), STRING),
        (pa.month_day_nano_interval(), STRING),
    ],
    ids=str,
)
def test_arrow_types_that_files_bring(arrow: pa.DataType, expected: DataType) -> None:
    assert domain_type(arrow) == expected


def test_field_ids_go_all_the_way_down() -> None:
    schema = arrow_schema(
        Struct(
            (
                Field("id", LONG, required=True, id=1),
                Field("tags", ListOf(Struct((Field("name", STRING, id=4),)), element_id=3), id=2),
                Field("props", MapOf(STRING, DOUBLE, key_id=6, value_id=7), id=5),
            )
        )
    )
    element = schema.field("tags").type.value_field
    props = schema.field("props").type
    found = [
        schema.field("id"),
        schema.field("tags"),
        element,
        element.type.field("name"),
        schema.field("props"),
        props.key_field,
        props.item_field,
    ]
    assert [field.metadata[b"PARQUET:field_id"] for field in found] == [b"1", b"2", b"3", b"4", b"5", b"6", b"7"]
    assert element.name == "element"
    assert not schema.field("id").nullable
    assert schema.field("tags").nullable


def test_a_field_without_an_id_has_no_metadata() -> None:
    assert arrow_field(Field("a", LONG)).metadata is None
