from __future__ import annotations

import pytest

from app.domain.errors import InvalidFieldError
from app.domain.table import (
    TableName,
    epoch_property,
    last_batch_property,
    last_batches,
    parse_table_name,
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sales.orders", TableName("local", ("sales",), "orders")),
        ("rest.sales.orders", TableName("rest", ("sales",), "orders")),
        ("rest.a.b.orders", TableName("rest", ("a", "b"), "orders")),
        ("group.order", TableName("local", ("group",), "order")),
        ("bücher.größe 日本", TableName("local", ("bücher",), "größe 日本")),
        ("db.1st-table", TableName("local", ("db",), "1st-table")),
        ('db.a"b', TableName("local", ("db",), 'a"b')),
        ("db.t; drop", TableName("local", ("db",), "t; drop")),
    ],
)
def test_names_are_taken_as_they_are_written(text: str, name: TableName) -> None:
    assert parse_table_name(text, default_catalog="local") == name


@pytest.mark.parametrize("text", ["", "orders", ".orders", "db.", "d..t", "db. ", "a.b/c", "a.b\\c", "a.b\nc", "\0a.b"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidFieldError, match="no table name"):
        parse_table_name(text, default_catalog="local")


def test_a_name_is_written_in_full_and_within_its_catalog() -> None:
    name = TableName("rest", ("a", "b"), "t")
    assert str(name) == "rest.a.b.t"
    assert name.within_catalog == "a.b.t"
    assert parse_table_name(str(name), default_catalog="other") == name


def test_last_batches_are_read_from_properties() -> None:
    properties = {
        last_batch_property("abc"): "12",
        last_batch_property("d.e"): "3",
        last_batch_property("broken"): "x",
        epoch_property("abc"): "4",
        "autoloader.load-ingestion": "abc",
        "write.format": "7",
    }
    assert last_batches(properties) == {"abc": 12, "d.e": 3}
