"""Reading a table back by SQL: what it may see, how values come out, how it may be named."""

from __future__ import annotations

import datetime as dt
import uuid as identities
from collections.abc import Iterator
from decimal import Decimal as Exact
from pathlib import Path

import duckdb
import pytest

from app.destinations.catalog import IcebergCatalog
from app.destinations.configured import local_catalog
from app.destinations.keywords import KEYWORDS
from app.destinations.querying import printed_query
from app.destinations.schemas import to_iceberg
from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import InvalidQueryError, TableUnreadableError
from app.domain.ports import CommitOrder
from app.domain.table import TableName
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
    UUID,
    Decimal,
    Field,
    Fixed,
    ListOf,
    MapOf,
    Struct,
)
from tests.support.parquet_files import write_data_file

TABLE = TableName("local", ("sales",), "orders")
SCHEMA = Struct((Field("id", LONG), Field("at", TIMESTAMPTZ), Field("name", STRING)))
NOON = dt.datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=dt.UTC)
ROWS: list[dict[str, object]] = [{"id": 1, "at": NOON, "name": "é"}, {"id": 2, "at": None, "name": None}]


def fill(
    catalog: IcebergCatalog, table: TableName, schema: Struct = SCHEMA, rows: list[dict[str, object]] | None = None
) -> None:
    """Make the table with one batch of rows."""
    rows = ROWS if rows is None else rows
    draft = catalog.draft_new(table, schema, {})
    data_files = (write_data_file(draft.sink(), "1.parquet", draft.schema, rows),) if rows else ()
    path = draft.write_manifest(BatchManifest(BatchRef("nightly", 1, 1), 1))
    draft.commit(CommitOrder(BatchRef("nightly", 1, 1), data_files, path, {}, lambda: None))


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[IcebergCatalog]:
    catalog = local_catalog(tmp_path / "warehouse")
    yield catalog
    catalog.close()


@pytest.fixture
def filled(catalog: IcebergCatalog) -> IcebergCatalog:
    fill(catalog, TABLE)
    return catalog


@pytest.mark.parametrize("name", ["orders", "sales.orders", "local.sales.orders", '"SALES"."Orders"'])
def test_the_table_goes_by_its_names(filled: IcebergCatalog, name: str) -> None:
    assert filled.query(TABLE, f"select * from {name} order by id;") == ROWS


@pytest.mark.parametrize(
    "table",
    [
        TableName("local", ("sales",), "order"),
        TableName("local", ("group",), "Select"),
        TableName("local", ("local",), "t"),
        TableName("local", ("memory",), "main"),
        TableName("local", ("main",), "t"),
        TableName("local", ("a", "b"), "t"),
        TableName("local", ("it's",), 'say "hi"'),
        TableName("local", ("sales",), "1st; drop table x --"),
    ],
    ids=str,
)
def test_a_printed_query_runs(catalog: IcebergCatalog, table: TableName) -> None:
    fill(catalog, table)
    assert len(catalog.query(table, catalog.printed_query(table))) == 2


def test_a_printed_query_is_quoted_where_it_must_be() -> None:
    assert printed_query(TABLE) == "select * from sales.orders limit 10"
    assert printed_query(TableName("local", ("sales",), "order")) == 'select * from sales."order" limit 10'
    assert printed_query(TableName("local", ("a", "b"), "Q1 x")) == 'select * from "a.b"."Q1 x" limit 10'


def test_the_words_that_are_quoted_are_duckdbs() -> None:
    query = "select keyword_name from duckdb_keywords() where keyword_category <> 'unreserved'"
    with duckdb.connect(":memory:") as connection:
        assert {name for (name,) in connection.execute(query).fetchall()} == KEYWORDS


def test_values_of_every_type_come_back(catalog: IcebergCatalog) -> None:
    schema = Struct(
        (
            Field("b", BOOLEAN), Field("i", INT), Field("l", LONG), Field("f", FLOAT), Field("d", DOUBLE),
            Field("date", DATE), Field("time", TIME), Field("ts", TIMESTAMP), Field("tz", TIMESTAMPTZ),
            Field("s", STRING), Field("u", UUID), Field("bin", BINARY), Field("fix", Fixed(3)),
            Field("dec", Decimal(38, 2)), Field("list", ListOf(LONG)), Field("map", MapOf(STRING, LONG)),
            Field("st", Struct((Field("x", STRING), Field("y", ListOf(TIMESTAMPTZ))))),
        )
    )  # fmt: skip
    row = {
        "b": True, "i": 2**31 - 1, "l": -(2**63), "f": 0.5, "d": 1e300, "date": dt.date(1, 1, 1),
        "time": dt.time(23, 59, 59, 999999), "ts": dt.datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
        "tz": dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC), "s": "\U0001d51e'",
        "u": identities.UUID(int=7), "bin": b"\x00\xff", "fix": b"abc", "dec": Exact("9" * 36 + ".99"),
        "list": [1, None], "map": {"a": 1}, "st": {"x": "y", "y": [NOON]},
    }  # fmt: skip
    stored = {**row, "u": identities.UUID(int=7).bytes, "map": [("a", 1)]}
    fill(catalog, TABLE, schema, [stored, {}])
    back, empty = catalog.query(TABLE, "select * from orders order by l nulls last")
    assert back == {**row, "st": {"x": "y", "y": ["2024-02-29 12:00:00.123456+00"]}}
    assert set(empty.values()) == {None}


def test_columns_of_one_name_are_told_apart(filled: IcebergCatalog) -> None:
    assert filled.query(TABLE, 'select 1 as a, 2 as a, 3 as "a_2", 4 as a') == [{"a": 1, "a_3": 2, "a_2": 3, "a_4": 4}]


def test_the_order_of_a_query_is_kept(filled: IcebergCatalog) -> None:
    assert [row["id"] for row in filled.query(TABLE, 'select "at", id from orders order by id desc')] == [2, 1]


def test_results_longer_than_one_fetch_are_whole(filled: IcebergCatalog) -> None:
    assert len(filled.query(TABLE, 'select "at" from orders, range(1501)')) == 3002


@pytest.mark.parametrize(
    "sql",
    [
        "", "select 1; select 2", "insert into orders values (1)", "copy orders to '/tmp/x'", "attach '/tmp/x.db'",
        "install spatial", "set threads = 1", "pragma database_list; drop view orders", "selct 1", "select nope",
        "select * from other", "select * from read_text('/etc/hostname')", "select * from glob('/*')",
        "select * from '/etc/passwd'", "create table x as select 1", "call enable_logging()", "explain select 1",
    ],
)  # fmt: skip
def test_a_query_sees_the_table_and_nothing_else(filled: IcebergCatalog, sql: str) -> None:
    with pytest.raises(InvalidQueryError):
        filled.query(TABLE, sql)


def test_duckdbs_words_say_what_is_wrong(filled: IcebergCatalog) -> None:
    with pytest.raises(InvalidQueryError, match="nope"):
        filled.query(TABLE, "select nope from orders")


def test_a_table_without_a_snapshot_has_no_rows(catalog: IcebergCatalog) -> None:
    fill(catalog, TABLE, rows=[])
    assert catalog.query(TABLE, "select * from orders") == []
    inner = catalog._opened
    assert inner is not None
    inner.create_table(("sales", "bare"), to_iceberg(SCHEMA))
    bare = TableName("local", ("sales",), "bare")
    assert catalog.query(bare, "select * from bare") == []
    assert catalog.describe(bare).rows == 0


def test_a_missing_data_file_is_the_tables_fault(tmp_path: Path, filled: IcebergCatalog) -> None:
    (tmp_path / "warehouse/sales/orders/data/1.parquet").unlink()
    with pytest.raises(TableUnreadableError):
        filled.query(TABLE, "select * from orders")


def test_nothing_is_left_in_the_working_folder(
    tmp_path: Path, filled: IcebergCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    filled.query(TABLE, "select count(*) from orders")
    assert list((tmp_path / "here").iterdir()) == []
