"""Where the model is held against the product: everything in memory but the ledger, or everything real."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog as Inner
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.table import Table
from requests import ConnectionError as RequestsConnectionError

from app.destinations.catalog import IcebergCatalog, open_catalog
from app.domain.discovery import in_key_order
from app.domain.errors import CommitUnknownError
from app.domain.failpoints import Failpoints
from app.domain.files import SourceFile
from app.domain.patterns import EVERYTHING, file_pattern
from app.domain.ports import CommitOrder, Committed, Draft, Engine, Source
from app.domain.runs import TableRecord
from app.domain.table import TableName
from app.engines.embedded.engine import EmbeddedEngine
from app.persistence.ledger import SqlLedger, open_ledger
from app.services.loading import LoadService
from app.services.run import LoadPorts, RunSettings
from app.sources.factory import open_source
from app.sources.sorting import DiskSorter
from tests.fakes.catalog import FakeCatalog, FakeDraft, FakeStore
from tests.fakes.engine import FakeEngine
from tests.fakes.source import MemorySource
from tests.model.lives import Hand, Life

FIRST = "a" * 32
# Sent and answered, or what becomes of it instead.
SENT, APPLIED, NOT_APPLIED, LATE = "sent", "answer lost", "request lost", "request late"


class _Ours:
    """The ledger as one ingestion has it: the command line's , or another one on the same table."""

    def __init__(self, ledger: Any, ingestion_id: str, *, is_second: bool) -> None:
        self._ledger, self._id, self._is_second = ledger, ingestion_id, is_second

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def ensure_load_ingestion(self, record: TableRecord, _: str) -> str:
        if self._is_second:
            self._ledger.adopt(record, self._id)
        else:
            assert self._ledger.ensure_load_ingestion(record, self._id) == self._id
        return self._id


def version_of(data: bytes) -> str:
    """As S3 gives them: older content has its older version again."""
    return hashlib.sha256(data).hexdigest()[:8]


class World(ABC):
    """A source, a ledger, a catalog and an engine; each process gets hands of its own on them."""

    table = TableName("local", ("db",), "t")

    def __init__(self, folder: Path) -> None:
        """Keep the ledger in `folder`; the connections to it are kept for one example after the other."""
        self.folder = folder
        self.url = f"sqlite:///{folder}/ledger.db"
        self.ledger: SqlLedger = open_ledger(self.url)
        self._save("fresh")
        # Requests that are still on their way.
        self.late: list[Callable[[], bool]] = []

    def begin(self) -> None:
        """Begin an example."""
        self.late = []
        self.restore("fresh")

    def service(
        self, life: Life, settings: RunSettings, *, fate: str = SENT, ingestion: str = FIRST, is_second: bool = False
    ) -> LoadService:
        """What a process loads with; `life` says how far it comes, `fate` what becomes of its first commit."""
        ledger: Any = Hand(life, _Ours(self.ledger, ingestion, is_second=is_second))
        keeper: Any = Hand(life, self.keeper())
        catalog: Any = Hand(life, self.catalog(life, fate))
        engine: Any = Hand(life, self.engine)
        ports = LoadPorts(
            open_ledger=lambda: ledger,
            has_ledger=lambda: True,
            catalog=catalog,
            storage=keeper,
            reader=keeper,
            engine=engine,
            open_source=self.open_source,
            in_order=in_order,
            owner=life.owner,
            failpoints=Failpoints(life.step),
            keep_out=(),
        )
        return LoadService(ports, settings)

    def end(self) -> None:
        """Let go of everything."""
        self.ledger.dispose()

    # --- the ledger's database -----------------------------------------------------------------------------------

    def _save(self, name: str) -> None:
        self.ledger.dispose()
        shutil.copyfile(self.folder / "ledger.db", self.folder / name)

    def backup(self) -> None:
        """Copy the database."""
        self._save("copy")

    def restore(self, name: str = "copy") -> None:
        """Put a copy in the database's place; `fresh` is one that was just made."""
        self.ledger.dispose()
        for file in self.folder.glob("ledger.db*"):
            file.unlink()
        shutil.copyfile(self.folder / name, self.folder / "ledger.db")

    def execute(self, statement: str) -> None:
        """Change the database, as time would."""
        with self.ledger._write() as connection:
            connection.exec_driver_sql(statement)

    # --- the source -----------------------------------------------------------------------------------------------

    @abstractmethod
    def put(self, name: str, data: bytes) -> str:
        """Write a file; returns its version."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Take a file away."""

    @abstractmethod
    def open_source(self, path: str, pattern: str | None, keys: Mapping[str, str] | None, /) -> Source:
        """As the port says."""

    @property
    @abstractmethod
    def path(self) -> str:
        """Where the files are."""

    # --- the table ------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """What reads and writes."""

    @abstractmethod
    def catalog(self, life: Life, fate: str) -> Any:
        """A process's catalog; `fate` is what becomes of its first commit."""

    @abstractmethod
    def keeper(self) -> Any:
        """A catalog for upkeep, without a fate."""

    @abstractmethod
    def rows(self) -> Counter[tuple[str, int]]:
        """How often each (name of a file, id) is in the table; rows of no file have the name `""`."""

    @abstractmethod
    def expire(self) -> None:
        """Somebody expires every snapshot but the current one."""

    @abstractmethod
    def ask(self, properties: Mapping[str, str]) -> None:
        """Somebody sets properties of the table."""

    @abstractmethod
    def append(self, number: int, /) -> None:
        """Somebody else appends a row."""

    def strange(self, number: int, /) -> Counter[tuple[str, int]]:
        """The row that `append` appends, as `rows` counts it."""
        return Counter({("", number): 1})

    @abstractmethod
    def orphans(self) -> set[str]:
        """Data files that no snapshot names."""

    def arrive(self) -> bool:
        """A request that was on its way arrives; whether it was applied."""
        return self.late.pop(0)()


class MemoryWorld(World):
    """The fakes."""

    def begin(self) -> None:
        super().begin()
        self.files = MemorySource()
        self.store = FakeStore()
        self._engine = FakeEngine()

    def put(self, name: str, data: bytes) -> str:
        file = self.files.put(name, data)._replace(version=version_of(data))
        self.files.files[file.key] = (file, data)
        return file.version

    def delete(self, name: str) -> None:
        self.files.delete(name)

    def open_source(self, _: str, pattern: str | None, __: Mapping[str, str] | None) -> Source:
        return replace(self.files, pattern=file_pattern(pattern) if pattern else EVERYTHING)

    @property
    def path(self) -> str:
        return "s3://memory/"

    @property
    def engine(self) -> Engine:
        return self._engine

    def catalog(self, life: Life, fate: str) -> Any:
        return _FatedCatalog(self, life, fate)

    def keeper(self) -> FakeCatalog:
        return FakeCatalog(self.store)

    def rows(self) -> Counter[tuple[str, int]]:
        table = self.store.get(self.table)
        found: Counter[tuple[str, int]] = Counter()
        for file in table.data_files if table else ():
            found += _count(pq.read_table(io.BytesIO(self.store.read(file.path))))
        return found

    def expire(self) -> None:
        self.store.change(self.table, lambda t: replace(t, snapshots=t.snapshots[-1:]))

    def ask(self, properties: Mapping[str, str]) -> None:
        self.store.change(self.table, lambda t: replace(t, properties={**t.properties, **properties}))

    def strange(self, _: int) -> Counter[tuple[str, int]]:
        return Counter()

    def append(self, _: int) -> None:
        """Without a row: of others' rows the fake has none."""
        hand = self.keeper()
        self.store.change(self.table, lambda t: replace(t, snapshots=(*t.snapshots, hand.snapshot(t))))

    def orphans(self) -> set[str]:
        # Of a table that was never made, the fake puts what was written beside no table at all.
        table = self.store.get(self.table)
        assert table is not None
        beside = {path for path in self.store.files if path.startswith(f"{table.location}/data/")}
        return beside - {f.path for f in table.data_files}


class _FatedCatalog(FakeCatalog):
    """A fake of which the first commit meets its fate."""

    def __init__(self, world: MemoryWorld, life: Life, fate: str) -> None:
        super().__init__(world.store)
        self.world, self.life, self.fate = world, life, fate

    def draft_new(self, *arguments: Any, **named: Any) -> Draft:
        return _FatedDraft(self, super().draft_new(*arguments, **named))

    def draft(self, *arguments: Any, **named: Any) -> Draft:
        return _FatedDraft(self, super().draft(*arguments, **named))


class _FatedDraft:
    def __init__(self, catalog: _FatedCatalog, inner: Draft) -> None:
        assert isinstance(inner, FakeDraft)
        self._catalog, self._inner = catalog, inner
        self.schema, self.table_uuid, self.location = inner.schema, inner.table_uuid, inner.location
        self.sink, self.write_manifest, self.holding = inner.sink, inner.write_manifest, inner.holding

    def commit(self, order: CommitOrder) -> Committed:
        catalog, store, table = self._catalog, self._catalog.store, self._catalog.world.table
        fate, catalog.fate = catalog.fate, SENT
        if fate == LATE:
            head = store.get(table)

            def arrive() -> bool:
                if store.get(table) is not head:
                    return False
                self._inner.commit(replace(order, assert_lease=lambda: None))
                catalog.life.tell("arrived", (order,), None)
                return True

            catalog.world.late.append(arrive)
        if fate in (LATE, NOT_APPLIED):
            catalog.life.lose_sight()
            raise CommitUnknownError
        done = self._inner.commit(order)
        catalog.life.tell("commit_table", (order,), done)
        if fate == APPLIED:
            catalog.life.lose_sight()
            raise CommitUnknownError
        return done


class RealWorld(World):
    """The SQLite ledger, a catalog of pyiceberg, files on disk, the engine's own processes."""

    def __init__(self, folder: Path, properties: Mapping[str, str] | None = None) -> None:
        """Keep everything in `folder`; `properties` are those of a catalog that is not a SQLite one there."""
        super().__init__(folder)
        self._properties = properties
        self._engine = EmbeddedEngine(processes=1)
        self._examples = 0
        self._catalogs: list[IcebergCatalog] = []

    def begin(self) -> None:
        super().begin()
        self._close_catalogs()
        shutil.rmtree(self.folder / str(self._examples), ignore_errors=True)
        self._examples += 1
        self.landing = self.folder / str(self._examples) / "landing"
        self.warehouse = self.folder / str(self._examples) / "warehouse"
        for made in (self.landing, self.warehouse):
            made.mkdir(parents=True)
        self.table = TableName("any", ("worlds",), f"t_{uuid.uuid4().hex[:12]}")
        self._keeper = self._open(open_catalog)

    def end(self) -> None:
        self._close_catalogs()
        self._engine.close()
        super().end()

    def put(self, name: str, data: bytes) -> str:
        path = self.landing / name
        path.write_bytes(data)
        # A time that belongs to the content, so that older content has its older version again.
        modified_s = int(version_of(data), 16) % 1_000_000_000 + 1
        os.utime(path, (modified_s, modified_s))
        return f"{len(data)}-{modified_s * 1_000_000_000}"

    def delete(self, name: str) -> None:
        (self.landing / name).unlink()

    def open_source(self, path: str, pattern: str | None, keys: Mapping[str, str] | None) -> Source:
        return open_source(path, file_pattern=pattern, credentials=keys, environ={})

    @property
    def path(self) -> str:
        return str(self.landing)

    @property
    def engine(self) -> Engine:
        return self._engine

    def catalog(self, life: Life, fate: str) -> Any:
        fates = [fate]

        def opener(name: str, properties: Mapping[str, str]) -> Inner:
            inner = open_catalog(name, properties)
            self._meet_fate(inner, life, fates)
            return inner

        return _OrderingCatalog(self._open(opener), life)

    def keeper(self) -> IcebergCatalog:
        return self._keeper

    def rows(self) -> Counter[tuple[str, int]]:
        table = self.found()
        return Counter() if table is None else _count(table.scan(selected_fields=("id", "_file_path")).to_arrow())

    def expire(self) -> None:
        table = self.found()
        assert table is not None
        current = table.metadata.current_snapshot_id
        old = [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id != current]
        if old:
            table.maintenance.expire_snapshots().by_ids(old).commit()

    def ask(self, properties: Mapping[str, str]) -> None:
        table = self.found()
        assert table is not None
        with table.transaction() as transaction:
            transaction.set_properties(dict(properties))

    def append(self, number: int) -> None:
        table = self.found()
        assert table is not None
        table.append(pa.table({"id": pa.array([number], pa.int64())}))

    def orphans(self) -> set[str]:
        table = self.found()
        if table is None:
            return set()
        # What the newest snapshot took out is named by it still, and stays until the next one.
        named = {
            Path(entry.data_file.file_path).name
            for snapshot in table.metadata.snapshots
            for manifest in snapshot.manifests(table.io)
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
        }
        return {p.name for p in Path(table.location().removeprefix("file://"), "data").glob("*.parquet")} - named

    def inner(self) -> Inner:
        """The catalog as another program has it."""
        inner = self._keeper._open()
        assert inner is not None
        return inner

    def found(self) -> Table | None:
        """The table as another program sees it; None where there is none."""
        try:
            return self.inner().load_table((*self.table.namespace, self.table.name))
        except NoSuchTableError:
            return None

    def _open(self, opener: Callable[[str, Mapping[str, str]], Inner]) -> IcebergCatalog:
        uri = f"sqlite:///{self.warehouse}/catalog.db"
        local = {"type": "sql", "uri": uri, "warehouse": str(self.warehouse)}
        catalog = IcebergCatalog("any", self._properties or local, opener=opener)
        self._catalogs.append(catalog)
        return catalog

    def _close_catalogs(self) -> None:
        for catalog in self._catalogs:
            catalog.close()
        self._catalogs = []

    def _meet_fate(self, inner: Inner, life: Life, fates: list[str]) -> None:
        apply = inner.commit_table

        def commit_table(table: Any, requirements: Any, updates: Any) -> Any:
            order = life.order
            if order is None:  # a fence
                return apply(table, requirements, updates)
            fate = fates.pop() if fates else SENT
            if fate == LATE:

                def arrive() -> bool:
                    try:
                        apply(table, requirements, updates)
                    except (CommitFailedException, NoSuchTableError):
                        return False
                    life.tell("arrived", (order,), None)
                    return True

                self.late.append(arrive)
            if fate in (LATE, NOT_APPLIED):
                life.lose_sight()
                raise RequestsConnectionError("the connection was reset")
            life.step("before commit_table")
            done = apply(table, requirements, updates)
            life.tell("commit_table", (order,), done)
            life.step("after commit_table")
            if fate == APPLIED:
                life.lose_sight()
                raise RequestsConnectionError("the connection was reset")
            return done

        inner.commit_table = commit_table  # type: ignore[method-assign]


class _OrderingCatalog:
    """Notes which order is on its way when the library sends a request."""

    def __init__(self, inner: IcebergCatalog, life: Life) -> None:
        self._inner, self._life = inner, life

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name not in {"draft", "draft_new"}:
            return value
        return lambda *arguments, **named: _OrderingDraft(value(*arguments, **named), self._life)


class _OrderingDraft:
    def __init__(self, inner: Draft, life: Life) -> None:
        self._inner, self._life = inner, life

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def commit(self, order: CommitOrder) -> Committed:
        self._life.order = order
        try:
            return self._inner.commit(order)
        finally:
            self._life.order = None


def _count(rows: pa.Table) -> Counter[tuple[str, int]]:
    names = rows["_file_path"].to_pylist()
    return Counter(((n or "").rpartition("/")[2], i) for n, i in zip(names, rows["id"].to_pylist(), strict=True))


def in_order(listing: Iterator[SourceFile], on_disorder: Callable[[str], None]) -> Iterator[SourceFile]:
    """As the port says."""
    return in_key_order(listing, DiskSorter(), on_disorder)
