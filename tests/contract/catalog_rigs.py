"""What the catalog suite runs on, and how another program meddles with each."""

from __future__ import annotations

import io
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog as Inner
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.types import LongType
from requests import ConnectionError as RequestsConnectionError

from app.destinations.catalog import IcebergCatalog, open_catalog
from app.destinations.schemas import to_iceberg
from app.domain.ports import Catalog
from app.domain.table import TableName
from app.domain.types import LONG, STRING, Field, ListOf, MapOf, Struct
from app.domain.upkeep import TableReader, TableStorage
from tests.fakes.catalog import FakeCatalog, FakeStore, FakeTable
from tests.support.parquet_files import write_data_file


class Client(Catalog, TableReader, TableStorage, Protocol):
    """Everything that a catalog can do."""


class Rig(ABC):
    """A catalog, its clients, and a hand that is not ours."""

    @abstractmethod
    def client(self) -> Client:
        """A new client of the same catalog."""

    @abstractmethod
    def forgetful(self) -> Catalog:
        """A client whose commits are applied and whose answers are lost."""

    @abstractmethod
    def contradicting(self) -> Catalog:
        """A client whose commits are applied and answered as conflicts."""

    def new_name(self) -> TableName:
        """A name that is free."""
        return TableName(self.catalog_name, ("contract",), f"t_{uuid.uuid4().hex[:12]}")

    @property
    @abstractmethod
    def catalog_name(self) -> str:
        """First part of the tables' names."""

    @abstractmethod
    def ids(self, table: TableName, *, snapshot_id: int | None = None) -> list[int]:
        """The values of the column `id`, sorted; as they are now, or were in a snapshot."""

    @abstractmethod
    def snapshots(self, table: TableName) -> int:
        """How many snapshots there are."""

    @abstractmethod
    def append(self, table: TableName, value: int) -> None:
        """Somebody else appends a row."""

    @abstractmethod
    def add_column(self, table: TableName, column: str) -> None:
        """Somebody else adds a long column."""

    @abstractmethod
    def drop(self, table: TableName) -> None:
        """Somebody else drops the table."""

    @abstractmethod
    def make(self, table: TableName, schema: Struct) -> None:
        """Somebody else makes a table."""

    @abstractmethod
    def expire(self, table: TableName) -> None:
        """Somebody else expires all snapshots but the current one."""


class IcebergRig(Rig):
    """A real catalog through pyiceberg."""

    def __init__(self, name: str, properties: Mapping[str, str]) -> None:
        self._name = name
        self._properties = dict(properties)
        self._hand = open_catalog(name, self._properties)
        self._hand.create_namespace_if_not_exists("contract")
        self._clients: list[IcebergCatalog] = []

    @property
    def catalog_name(self) -> str:
        return self._name

    def client(self) -> IcebergCatalog:
        return self._keep(IcebergCatalog(self._name, self._properties))

    def forgetful(self) -> IcebergCatalog:
        return self._keep(IcebergCatalog(self._name, self._properties, opener=self._forgetting))

    def contradicting(self) -> IcebergCatalog:
        return self._keep(IcebergCatalog(self._name, self._properties, opener=self._contradicting))

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._hand.close()

    def ids(self, table: TableName, *, snapshot_id: int | None = None) -> list[int]:
        scan = self._load(table).scan(selected_fields=("id",), snapshot_id=snapshot_id)
        return sorted(scan.to_arrow()["id"].to_pylist())

    def snapshots(self, table: TableName) -> int:
        return len(self._load(table).metadata.snapshots)

    def append(self, table: TableName, value: int) -> None:
        self._load(table).append(pa.table({"id": pa.array([value], pa.int64())}))

    def add_column(self, table: TableName, column: str) -> None:
        with self._load(table).update_schema() as update:
            update.add_column(column, LongType())

    def drop(self, table: TableName) -> None:
        self._hand.drop_table((*table.namespace, table.name))

    def make(self, table: TableName, schema: Struct) -> None:
        self._hand.create_table((*table.namespace, table.name), to_iceberg(schema))

    def expire(self, table: TableName) -> None:
        loaded = self._load(table)
        current = loaded.metadata.current_snapshot_id
        old = [s.snapshot_id for s in loaded.metadata.snapshots if s.snapshot_id != current]
        loaded.maintenance.expire_snapshots().by_ids(old).commit()

    def _load(self, table: TableName) -> Table:
        return self._hand.load_table((*table.namespace, table.name))

    def _keep(self, client: IcebergCatalog) -> IcebergCatalog:
        self._clients.append(client)
        return client

    def _forgetting(self, name: str, properties: Mapping[str, str]) -> Inner:
        return _after_commit(open_catalog(name, properties), RequestsConnectionError("the connection was reset"))

    def _contradicting(self, name: str, properties: Mapping[str, str]) -> Inner:
        return _after_commit(open_catalog(name, properties), CommitFailedException("somebody was faster"))


def _after_commit(inner: Inner, error: Exception) -> Inner:
    apply = inner.commit_table

    def commit_table(
        table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        apply(table, requirements, updates)
        raise error

    inner.commit_table = commit_table  # type: ignore[method-assign]
    return inner


class FakeRig(Rig):
    """The catalog in memory."""

    def __init__(self) -> None:
        self.store = FakeStore()

    @property
    def catalog_name(self) -> str:
        return "fake"

    def client(self) -> FakeCatalog:
        return FakeCatalog(self.store)

    def forgetful(self) -> FakeCatalog:
        return FakeCatalog(self.store, lose_answers=True)

    def contradicting(self) -> FakeCatalog:
        return FakeCatalog(self.store)

    def ids(self, table: TableName, *, snapshot_id: int | None = None) -> list[int]:
        ids: list[int] = []
        now = self._load(table)
        snapshot = next((s for s in now.snapshots if s.id == snapshot_id), None)
        for data_file in snapshot.data_files if snapshot else now.data_files:
            ids += pq.read_table(io.BytesIO(self.store.read(data_file.path)))["id"].to_pylist()
        return sorted(ids)

    def snapshots(self, table: TableName) -> int:
        return len(self._load(table).snapshots)

    def append(self, table: TableName, value: int) -> None:
        draft = self.client().draft(table, ())
        data_file = write_data_file(draft.sink(), f"other-{value}.parquet", draft.schema, [{"id": value}])
        hand = self.client()
        self.store.change(
            table,
            lambda t: replace(t, snapshots=(*t.snapshots, hand.snapshot(t)), data_files=(*t.data_files, data_file)),
        )

    def add_column(self, table: TableName, column: str) -> None:
        def edit(now: FakeTable) -> FakeTable:
            field = Field(column, LONG, id=now.last_field_id + 1)
            return replace(now, schema=Struct((*now.schema.fields, field)), last_field_id=now.last_field_id + 1)

        self.store.change(table, edit)

    def drop(self, table: TableName) -> None:
        assert self.store.swap(table, self.store.get(table), None)

    def make(self, table: TableName, schema: Struct) -> None:
        draft = self.client().draft_new(table, schema, {})
        assert isinstance(getattr(draft, "table", None), FakeTable)
        assert self.store.swap(table, None, draft.table)  # type: ignore[attr-defined]

    def expire(self, table: TableName) -> None:
        self.store.change(table, lambda now: replace(now, snapshots=now.snapshots[-1:]))

    def _load(self, table: TableName) -> FakeTable:
        now = self.store.get(table)
        assert now is not None
        return now


# Every kind of nesting, for ids are given out differently by different catalogs.
NESTED = Struct(
    (
        Field("id", LONG),
        Field("who", Struct((Field("name", STRING), Field("tags", ListOf(Struct((Field("key", STRING),))))))),
        Field("scores", MapOf(STRING, Struct((Field("value", LONG),)))),
    )
)
