"""A table on an object store, behind a REST catalog: where things go, and reading it back."""

from __future__ import annotations

import pytest

from app.destinations.catalog import IcebergCatalog
from app.destinations.sink import ObjectStoreSink
from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import InvalidQueryError
from app.domain.ports import CommitOrder
from app.domain.table import TableName
from app.domain.types import LONG, STRING, Field, Struct
from tests.contract.catalog_rigs import IcebergRig
from tests.support.parquet_files import write_data_file
from tests.support.seaweed import Seaweed


@pytest.fixture
def properties(seaweed: Seaweed) -> dict[str, str]:
    return {
        "type": "rest",
        "uri": seaweed.rest_uri,
        "warehouse": seaweed.rest_warehouse,
        "credential": f"{seaweed.access_key}:{seaweed.secret_key}",
        "oauth2-server-uri": f"{seaweed.rest_uri}/v1/oauth/tokens",
        "s3.endpoint": seaweed.endpoint,
        "s3.access-key-id": seaweed.access_key,
        "s3.secret-access-key": seaweed.secret_key,
        "s3.region": seaweed.region,
    }


def test_a_table_on_an_object_store_is_read_back(properties: dict[str, str]) -> None:
    rig = IcebergRig("rest", properties)
    catalog, table = rig.client(), rig.new_name()
    draft = catalog.draft_new(table, Struct((Field("id", LONG), Field("name", STRING))), {})
    sink = draft.sink()
    assert isinstance(sink, ObjectStoreSink)
    assert set(sink.properties) == {n for n in properties if n.startswith("s3.")}
    rows = [{"id": n, "name": "é"} for n in range(3)]
    data_file = write_data_file(sink, "1.parquet", draft.schema, rows)
    batch = BatchRef("nightly", 1, 1)
    manifest = BatchManifest(batch, 1)
    path = draft.write_manifest(manifest)
    draft.commit(CommitOrder(batch, (data_file,), path, {}, lambda: None))
    assert catalog.query(table, f"select * from {table.within_catalog} order by id") == rows
    described = catalog.describe(table)
    assert (described.rows, described.snapshots, described.files) == (3, 1, 1)
    assert "secretsecret" not in str(described)
    with pytest.raises(InvalidQueryError):
        catalog.query(table, "select * from read_text('/etc/hostname')")
    # The folder that took the first manifest takes the next ones.
    later = catalog.draft(table, ()).write_manifest(BatchManifest(BatchRef("nightly", 2, 1), 1))
    assert later.rpartition("/")[0] == path.rpartition("/")[0]
    found = catalog.find_batch(table, batch)
    assert found is not None
    assert found.manifest == manifest
    rig.close()


def test_an_object_store_behind_an_sql_catalog_keeps_manifests_outside_the_table(
    properties: dict[str, str], bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    storage = {name: value for name, value in properties.items() if name.startswith("s3.")}
    file = tmp_path_factory.mktemp("sql") / "c.db"
    catalog = IcebergCatalog("mixed", {**storage, "uri": f"sqlite:///{file}", "warehouse": f"s3://{bucket}/lake"})
    table = TableName("mixed", ("sales",), "order s")
    draft = catalog.draft_new(table, Struct((Field("id", LONG),)), {})
    data_file = write_data_file(draft.sink(), "1.parquet", draft.schema, [{"id": 1}])
    batch = BatchRef("nightly", 1, 1)
    path = draft.write_manifest(BatchManifest(batch, 1))
    draft.commit(CommitOrder(batch, (data_file,), path, {}, lambda: None))
    assert path.startswith(f"s3://{bucket}/lake/.autoloader/manifests/")
    assert catalog.query(table, catalog.printed_query(table))[0]["id"] == 1
    found = catalog.find_batch(table, batch)
    assert found is not None
    assert found.manifest is not None
    catalog.close()
