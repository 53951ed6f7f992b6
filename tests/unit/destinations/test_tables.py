"""Tables made elsewhere, broken tables, and what a table shows of itself."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog as Inner
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.transforms import IdentityTransform

from app.destinations.catalog import IcebergCatalog
from app.destinations.configured import local_catalog
from app.destinations.properties import FILE_PATH_METRICS
from app.destinations.schemas import to_iceberg
from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import CatalogRefusedError, TableUnreadableError, TableUnsuitableError, WriteFailureError
from app.domain.ports import CommitOrder, DataFile
from app.domain.system_columns import system_columns
from app.domain.table import TableName
from app.domain.types import LONG, STRING, Field, Struct
from tests.support.parquet_files import write_data_file

TABLE = TableName("local", ("sales",), "orders")
SCHEMA = Struct((Field("id", LONG), *system_columns(provenance=True)))
FILES = [f"s3://landing/a/folder/with/a/long/name/{n}.json" for n in range(2)]


@pytest.fixture
def catalog(tmp_path: Path) -> IcebergCatalog:
    return local_catalog(tmp_path / "warehouse")


def load(catalog: IcebergCatalog, number: int) -> None:
    """One batch of two rows."""
    draft = catalog.draft(TABLE, ()) if catalog.head(TABLE) else catalog.draft_new(TABLE, SCHEMA, {})
    rows = [{"id": number, "_file_path": path} for path in FILES]
    data_file = write_data_file(draft.sink(), f"{number}.parquet", draft.schema, rows)
    path = draft.write_manifest(BatchManifest(BatchRef("nightly", number, 1), 1))
    draft.commit(CommitOrder(BatchRef("nightly", number, 1), (data_file,), path, {}, lambda: None))


def inner_of(catalog: IcebergCatalog) -> Inner:
    """The library's own catalog, with the namespace in it."""
    catalog.draft_new(TABLE, SCHEMA, {})
    assert catalog._opened is not None
    return catalog._opened


def test_a_table_shows_its_counts_and_columns(catalog: IcebergCatalog) -> None:
    load(catalog, 1)
    load(catalog, 2)
    table = catalog.load(TABLE)
    with table.transaction() as transaction:
        transaction.set_properties({"s3.secret-access-key": "hidden"})
    described = catalog.describe(TABLE)
    assert (described.rows, described.snapshots, described.files) == (4, 2, 2)
    files = list(Path(table.location()).glob("data/*.parquet"))
    assert described.bytes == sum(file.stat().st_size for file in files)
    assert [(c.name, c.type, c.system) for c in described.schema][:2] == [
        ("id", "long", False),
        ("_file_path", "string", True),
    ]
    assert "hidden" not in str(described)
    assert described.properties["commit.manifest-merge.enabled"] == "true"
    table.refresh().delete("id = 1")
    assert catalog.describe(TABLE).rows == 2


def test_paths_have_whole_bounds(catalog: IcebergCatalog) -> None:
    load(catalog, 1)
    (bounds,) = catalog.load(TABLE).inspect.files()["readable_metrics"].to_pylist()
    assert (bounds["_file_path"]["lower_bound"], bounds["_file_path"]["upper_bound"]) == tuple(FILES)


def test_a_table_made_elsewhere_gets_whole_bounds_with_its_first_batch(catalog: IcebergCatalog) -> None:
    inner_of(catalog).create_table(("sales", "orders"), to_iceberg(SCHEMA))
    load(catalog, 1)
    head = catalog.head(TABLE)
    assert head is not None
    assert head.properties[FILE_PATH_METRICS] == "full"


def test_a_table_that_forbids_retries_is_committed_all_the_same(catalog: IcebergCatalog) -> None:
    inner = inner_of(catalog)
    inner.create_table(("sales", "orders"), to_iceberg(SCHEMA), properties={"commit.retry.num-retries": "0"})
    draft = catalog.draft(TABLE, ())
    data_file = write_data_file(draft.sink(), "1.parquet", draft.schema, [{"id": 1}])
    batch = BatchRef("nightly", 1, 1)
    path = draft.write_manifest(BatchManifest(batch, 1))
    calls = []

    def meddle() -> None:
        calls.append(1)
        if len(calls) < 3:
            inner.load_table(("sales", "orders")).append(pa.table({"id": [50]}))

    draft.commit(CommitOrder(batch, (data_file,), path, {}, meddle))
    assert sorted(inner.load_table(("sales", "orders")).scan().to_arrow()["id"].to_pylist()) == [1, 50, 50]


def test_partitioned_tables_are_refused(catalog: IcebergCatalog) -> None:
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "id"))
    inner_of(catalog).create_table(("sales", "orders"), to_iceberg(SCHEMA), partition_spec=spec)
    with pytest.raises(TableUnsuitableError, match="partitioned"):
        catalog.draft(TABLE, ())


def test_tables_of_format_version_3_are_refused(catalog: IcebergCatalog) -> None:
    table = inner_of(catalog).create_table(("sales", "orders"), to_iceberg(SCHEMA))
    metadata = Path(table.metadata_location)
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "format-version": 3, "next-row-id": 0}))
    assert catalog.head(TABLE) is not None
    with pytest.raises(TableUnsuitableError, match="version 3"):
        catalog.draft(TABLE, ())


def test_tables_of_format_version_1_are_written(catalog: IcebergCatalog) -> None:
    inner_of(catalog).create_table(("sales", "orders"), to_iceberg(SCHEMA), properties={"format-version": "1"})
    load(catalog, 1)
    load(catalog, 2)
    assert catalog.describe(TABLE).rows == 4
    assert len(catalog.query(TABLE, "select * from orders")) == 4


@pytest.mark.parametrize("content", [None, b"{", b"[]", b'{"format-version": 9}'], ids=["gone", "cut", "list", "v9"])
def test_broken_metadata_is_said_with_its_path(catalog: IcebergCatalog, content: bytes | None) -> None:
    load(catalog, 1)
    metadata = Path(catalog.load(TABLE).metadata_location)
    if content is None:
        metadata.unlink()
    else:
        metadata.write_bytes(content)
    with pytest.raises(TableUnreadableError, match=r"sales\.orders"):
        catalog.head(TABLE)


def test_a_name_that_a_view_has_is_refused(tmp_path: Path, catalog: IcebergCatalog) -> None:
    load(catalog, 1)
    with closing(sqlite3.connect(tmp_path / "warehouse/catalog.db")) as connection:
        connection.execute("update iceberg_tables set iceberg_type = 'VIEW'")
        connection.commit()
    with pytest.raises(CatalogRefusedError, match="view"):
        load(catalog, 1)


def test_a_data_file_that_is_not_what_it_was_is_not_committed(catalog: IcebergCatalog) -> None:
    draft = catalog.draft_new(TABLE, SCHEMA, {})
    data_file = write_data_file(draft.sink(), "1.parquet", draft.schema, [{"id": 1}])
    batch = BatchRef("nightly", 1, 1)
    path = draft.write_manifest(BatchManifest(batch, 1))
    wrong = (DataFile(data_file.path, 2, 1), DataFile(data_file.path + ".gone", 1, 1))
    for one in wrong:
        with pytest.raises(WriteFailureError):
            draft.commit(CommitOrder(batch, (one,), path, {}, lambda: None))
    assert catalog.head(TABLE) is None


def test_a_manifest_that_is_broken_or_gone_is_none(catalog: IcebergCatalog) -> None:
    load(catalog, 1)
    head = catalog.head(TABLE)
    assert head is not None
    (file,) = Path(head.properties["autoloader.manifests"]).iterdir()
    for damage in (lambda: file.write_text("{}"), file.unlink):
        damage()
        found = catalog.find_batch(TABLE, BatchRef("nightly", 1, 1))
        assert found is not None
        assert found.manifest is None


def test_write_data_path_is_honoured(tmp_path: Path, catalog: IcebergCatalog) -> None:
    properties = {"write.data.path": f"{tmp_path}/elsewhere"}
    draft = catalog.draft_new(TABLE, Struct((Field("id", LONG), Field("n", STRING))), properties)
    data_file = write_data_file(draft.sink(), "1.parquet", draft.schema, [{"id": 1}])
    assert data_file.path == f"{tmp_path}/elsewhere/1.parquet"
    path = draft.write_manifest(BatchManifest(BatchRef("nightly", 1, 1), 1))
    draft.commit(CommitOrder(BatchRef("nightly", 1, 1), (data_file,), path, {}, lambda: None))
    assert catalog.query(TABLE, "select id from orders") == [{"id": 1}]
