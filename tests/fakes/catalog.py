"""A catalog in memory that keeps every promise of the port: tables, snapshots, properties, guarded commits."""

from __future__ import annotations

import io
import itertools
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import (
    AlreadyCommittedError,
    AutoloaderError,
    CommitUnknownError,
    FencedError,
    TableConflictError,
    TableNotFoundError,
    TableUnsuitableError,
)
from app.domain.evolution import AddColumn, Change, apply_changes
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.domain.history import History, PastSnapshot, retention
from app.domain.ports import CommitOrder, Committed, DataFile, DataSink, Draft, FoundBatch
from app.domain.replacing import Holding, RowsOf, StoredData
from app.domain.system_columns import BATCH_ID, FILE_MODIFIED_AT, FILE_PATH, system_columns
from app.domain.table import MANIFEST_FOLDER, TableHead, TableName, epoch_property, last_batch_property, last_batches
from app.domain.types import DataType, Field, ListOf, MapOf, Struct
from app.domain.upkeep import BatchCommit, Contents, Expired, References, StoredFile, StoredObject

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class FakeSnapshot:
    """What one commit did."""

    id: int
    parent: int | None
    sequence_number: int
    batch_id: str | None = None
    manifest_path: str | None = None
    # What the table held from then on; told of commits of ours.
    data_files: tuple[DataFile, ...] = ()
    at_ms: int = 0


@dataclass(frozen=True)
class FakeTable:
    """A table at one moment. A commit replaces it by the next one, if nobody else did meanwhile."""

    uuid: str
    location: str
    schema: Struct
    last_field_id: int
    properties: Mapping[str, str] = field(default_factory=dict)
    snapshots: tuple[FakeSnapshot, ...] = ()
    data_files: tuple[DataFile, ...] = ()

    @property
    def current(self) -> FakeSnapshot | None:
        """The newest snapshot."""
        return self.snapshots[-1] if self.snapshots else None

    def has(self, batch: BatchRef) -> bool:
        """Whether the batch is in."""
        last = self.properties.get(last_batch_property(batch.ingestion_id), "")
        in_by_number = last.isdecimal() and batch.number <= int(last)
        return in_by_number or any(s.batch_id == batch.batch_id for s in self.snapshots)

    @property
    def going(self) -> tuple[int, ...]:
        """The snapshots that its properties let go."""
        wanted = retention(self.properties)
        past = {s.id: PastSnapshot(s.id, s.parent, s.at_ms) for s in self.snapshots}
        return History(past, self.current.id if self.current else None).going(wanted) if wanted else ()

    def epoch(self, ingestion_id: str) -> int:
        """The highest epoch that may commit."""
        return int(self.properties.get(epoch_property(ingestion_id), "0"))


class FakeStore:
    """What several clients of one catalog share: the tables, and the files written beside them."""

    def __init__(self, folder: Path | None = None) -> None:
        """Keep files in memory, or below `folder` where processes other than this one write them."""
        self.folder = folder
        self.files: dict[str, bytes] = {}
        self.written_at: dict[str, datetime] = {}
        self._tables: dict[TableName, FakeTable] = {}
        self._lock = threading.Lock()
        self._ids = itertools.count(1)

    def next_id(self) -> int:
        """A number that was not given before."""
        return next(self._ids)

    def get(self, name: TableName) -> FakeTable | None:
        """The table now."""
        with self._lock:
            return self._tables.get(name)

    def swap(self, name: TableName, old: FakeTable | None, new: FakeTable | None) -> bool:
        """Put `new` in the place of exactly `old`; False when something else is there."""
        with self._lock:
            if self._tables.get(name) is not old:
                return False
            if new is None:
                self._tables.pop(name, None)
            else:
                self._tables[name] = new
            return True

    def change(self, name: TableName, edit: Callable[[FakeTable], FakeTable]) -> None:
        """Edit a table as another program would."""
        while True:
            old = self.get(name)
            assert old is not None, f"there is no {name}"
            if self.swap(name, old, edit(old)):
                return

    def list(self, folder: str) -> Iterator[StoredObject]:
        """The files in memory of a folder; old ones, unless `written_at` says when they were written."""
        for path, data in list(self.files.items()):
            if path.rpartition("/")[0] == folder:
                yield StoredObject(path, len(data), self.written_at.get(path, LONG_AGO))

    def read(self, path: str) -> bytes:
        """The bytes of a file."""
        return self.files[path] if self.folder is None else Path(path).read_bytes()


@dataclass(frozen=True)
class MemorySink:
    """Files in the store's memory: for engines that write in this process."""

    store: FakeStore
    folder: str

    def create(self, name: str) -> tuple[str, AbstractContextManager[BinaryIO]]:
        path = f"{self.folder}/{name}"
        return path, self._file(path)

    def delete(self, path: str) -> None:
        self.store.files.pop(path, None)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        if path not in self.store.files:
            raise FileNotFoundError(path)
        return io.BytesIO(self.store.files[path])

    @contextmanager
    def _file(self, path: str) -> Iterator[BinaryIO]:
        buffer = KeptBytes()
        yield buffer
        self.store.files[path] = buffer.kept if buffer.closed else buffer.getvalue()


class KeptBytes(io.BytesIO):
    """A buffer whose bytes outlive its closing, for writers that close what they are given."""

    kept = b""

    def close(self) -> None:
        if not self.closed:
            self.kept = self.getvalue()
        super().close()


@dataclass(frozen=True)
class FolderSink:
    """Real files: for engines that write in other processes."""

    folder: str

    def create(self, name: str) -> tuple[str, AbstractContextManager[BinaryIO]]:
        path = Path(self.folder) / name
        return str(path), self._file(path)

    def delete(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        return Path(path).open("rb")

    @contextmanager
    def _file(self, path: Path) -> Iterator[BinaryIO]:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb") as file:
                yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise


class FakeCatalog:
    """One client of a store."""

    def __init__(
        self,
        store: FakeStore | None = None,
        *,
        lose_answers: bool = False,
        failpoints: Failpoints = NO_FAILPOINTS,
    ) -> None:
        """Look at `store`, a new one by default.

        Args:
            store: What other clients see too.
            lose_answers: Commits are applied, and nobody hears of it.
            failpoints: Told of the same steps as a real catalog's.
        """
        self.store = store or FakeStore()
        self.lose_answers = lose_answers
        self.failpoints = failpoints
        # Raised once, by the next call, as an unreachable catalog would.
        self.failure: AutoloaderError | None = None

    def head(self, table: TableName) -> TableHead | None:
        now = self._get(table)
        return None if now is None else _head(table, now)

    def draft_new(self, table: TableName, schema: Struct, properties: Mapping[str, str]) -> Draft:
        if self._get(table) is not None:
            raise TableConflictError(f"The table {table} exists by now.")
        ids = itertools.count(1)
        fresh = _fresh(schema, lambda: next(ids))
        assert isinstance(fresh, Struct)
        identity = str(uuid.uuid4())
        root = "memory:/" if self.store.folder is None else str(self.store.folder)
        location = "/".join([root, *table.namespace, f"{table.name}-{identity[:8]}"])
        return FakeDraft(self, table, None, FakeTable(identity, location, fresh, next(ids) - 1, dict(properties)))

    def draft(self, table: TableName, changes: Sequence[Change], *, provenance: bool = True) -> Draft:
        now = self._get(table)
        if now is None:
            raise TableNotFoundError(f"There is no table {table}.")
        if any(isinstance(c, AddColumn) and len(c.path) == 1 and now.schema.find(c.path[0]) for c in changes):
            raise TableConflictError(f"The schema of {table} was changed.")
        additions: list[Change] = list(changes)
        for column in system_columns(provenance=provenance):
            present = now.schema.find(column.name)
            if present is None:
                additions.append(AddColumn((column.name,), column.type))
            elif present.type != column.type:
                raise TableUnsuitableError(f"The column {column.name} of {table} has another type.")
        ids = itertools.count(now.last_field_id + 1)
        changed = _numbered(apply_changes(now.schema, tuple(additions)), lambda: next(ids))
        assert isinstance(changed, Struct)
        return FakeDraft(self, table, now, replace(now, schema=changed, last_field_id=next(ids) - 1))

    def find_batch(self, table: TableName, batch: BatchRef) -> FoundBatch | None:
        now = self._get(table)
        if now is None or not now.has(batch):
            return None
        return FoundBatch(self._manifest(now, batch), _head(table, now))

    def fence(self, table: TableName, batch: BatchRef, assert_lease: Callable[[], None]) -> TableHead:
        while True:
            now = self._get(table)
            if now is None:
                raise TableNotFoundError(f"There is no table {table}.")
            if now.epoch(batch.ingestion_id) > batch.epoch:
                raise FencedError
            assert_lease()
            properties = {**now.properties, epoch_property(batch.ingestion_id): str(batch.epoch)}
            new = replace(now, properties=properties, snapshots=(*now.snapshots, self.snapshot(now)))
            with self.failpoints.step("fence_request"):
                swapped = self.store.swap(table, now, new)
            if swapped:
                return _head(table, new)

    def expire(self, table: TableName, batch: BatchRef, assert_lease: Callable[[], None]) -> int:
        now = self._there(table)
        if now.epoch(batch.ingestion_id) > batch.epoch:
            raise FencedError
        going, folder = now.going, now.properties.get(MANIFEST_FOLDER)
        if not going or not folder:
            return 0
        with self.failpoints.step("expiry_noted"):
            self._note(now, going, f"{folder}/expired")
        assert_lease()
        new = replace(now, snapshots=tuple(s for s in now.snapshots if s.id not in going))
        with self.failpoints.step("expiry_request"):
            swapped = self.store.swap(table, now, new)
        if not swapped:
            raise TableConflictError(f"Another writer of {table} was faster.")
        if self.lose_answers:
            raise CommitUnknownError
        return len(going)

    def _note(self, now: FakeTable, going: tuple[int, ...], folder: str) -> None:
        gone = {s.id: [f.path for f in s.data_files] for s in now.snapshots if s.id in going}
        for snapshot_id in gone:
            self.store.files[_manifest_list(now, snapshot_id)] = b"list"
        self.store.files[f"{folder}/{self.store.next_id()}.json"] = json.dumps(gone).encode()

    def _notes(self, now: FakeTable) -> Iterator[tuple[StoredObject, dict[int, list[str]]]]:
        """The notes, and of each the snapshots that are gone with their data files."""
        there = {s.id for s in now.snapshots}
        for file in self.store.list(f"{now.properties.get(MANIFEST_FOLDER, '')}/expired"):
            noted = {int(number): paths for number, paths in json.loads(self.store.files[file.path]).items()}
            yield file, {number: paths for number, paths in noted.items() if number not in there}

    def expired(self, table: TableName, before: datetime) -> Expired:
        now = self._there(table)
        notes = list(self._notes(now))
        young = {number for file, gone in notes if file.modified_at >= before for number in gone}
        old = [(file, gone) for file, gone in notes if file.modified_at < before]
        gone = {number: paths for _, noted in old for number, paths in noted.items() if number not in young}
        lists = [
            StoredObject(path, len(self.store.files[path]), LONG_AGO)
            for path in (_manifest_list(now, number) for number in gone)
            if path in self.store.files
        ]
        present = {f.path for f in now.data_files}
        return Expired((*lists, *(file for file, _ in old)), any(set(paths) - present for paths in gone.values()))

    def contents(self, table: TableName) -> Contents:
        now = self._there(table)
        rows: list[dict[str, Any]] = []
        for data_file in now.data_files:
            rows += pq.read_table(io.BytesIO(self.store.read(data_file.path))).to_pylist()
        by_file = now.schema.find(FILE_PATH) is not None
        if not by_file:
            return Contents(_head(table, now), by_file, iter([StoredFile(None, None, len(rows))] if rows else []))
        counts = Counter((r.get(FILE_PATH), r.get(BATCH_ID), r.get(FILE_MODIFIED_AT)) for r in rows)
        files = [StoredFile(key, batch_id, n, modified_at) for (key, batch_id, modified_at), n in counts.items()]
        return Contents(_head(table, now), by_file, iter(sorted(files, key=lambda f: ((f.key or "").encode(), str(f)))))

    def data_folder(self, table: TableName) -> Iterator[StoredObject]:
        return self.store.list(f"{self._there(table).location}/data")

    def manifest_folder(self, table: TableName) -> Iterator[StoredObject]:
        folder = self._there(table).properties.get(MANIFEST_FOLDER)
        return self.store.list(folder) if folder else iter(())

    def read_manifests(self, table: TableName, paths: Iterable[str]) -> Iterator[BatchManifest | None]:
        self._there(table)
        for path in paths:
            try:
                yield BatchManifest.from_json(self.store.files.get(path, b"{}"))
            except ValueError:
                yield None

    def references(self, table: TableName, names: Collection[str]) -> References:
        now = self._there(table)
        paths = {f.path for f in now.data_files}
        paths.update(f.path for s in now.snapshots for f in s.data_files)
        paths.update(path for _, gone in self._notes(now) for noted in gone.values() for path in noted)
        held = {path.rpartition("/")[2] for path in paths}
        commits = [
            BatchCommit(_ref(s.batch_id, s.manifest_path), s.manifest_path, s.id, s.sequence_number)
            for s in now.snapshots
            if s.batch_id and s.manifest_path
        ]
        for ingestion_id, number in last_batches(now.properties).items():
            path = now.properties.get(f"autoloader.{ingestion_id}.last-manifest")
            if path and path.rpartition("/")[2].startswith(f"{ingestion_id}-{number:08d}."):
                commits.append(BatchCommit(_ref(f"{ingestion_id}-{number:08d}", path), path))
        return References(_head(table, now), frozenset(held & set(names)), tuple(commits))

    def remove(self, table: TableName, paths: Iterable[str]) -> None:
        self._there(table)
        for path in paths:
            with self.failpoints.step("leftover_removed"):
                self.store.files.pop(path, None)

    def _there(self, table: TableName) -> FakeTable:
        now = self._get(table)
        if now is None:
            raise TableNotFoundError(f"There is no table {table}.")
        return now

    def snapshot(self, table: FakeTable, batch_id: str | None = None, manifest_path: str | None = None) -> FakeSnapshot:
        """The next snapshot of `table`."""
        parent = table.current
        number = parent.sequence_number + 1 if parent else 1
        return FakeSnapshot(self.store.next_id(), parent.id if parent else None, number, batch_id, manifest_path)

    def _get(self, table: TableName) -> FakeTable | None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return self.store.get(table)

    def _manifest(self, table: FakeTable, batch: BatchRef) -> BatchManifest | None:
        paths = [s.manifest_path for s in table.snapshots if s.batch_id == batch.batch_id and s.manifest_path]
        folder = table.properties.get(MANIFEST_FOLDER, "")
        tries = [path for path in self.store.files if path.startswith(f"{folder}/{batch.batch_id}.")]
        paths += sorted(tries, key=lambda path: int(path.split(".")[-2]), reverse=True)
        for path in paths:
            if path in self.store.files:
                return BatchManifest.from_json(self.store.files[path])
        return None


@dataclass
class FakeDraft:
    """The next commit of a fake table; `base` None makes it."""

    catalog: FakeCatalog
    name: TableName
    base: FakeTable | None
    table: FakeTable

    @property
    def schema(self) -> Struct:
        return self.table.schema

    @property
    def table_uuid(self) -> str:
        return self.table.uuid

    @property
    def location(self) -> str:
        return self.table.location

    def sink(self) -> DataSink:
        folder = f"{self.table.location}/data"
        return MemorySink(self.catalog.store, folder) if self.catalog.store.folder is None else FolderSink(folder)

    def write_manifest(self, manifest: BatchManifest) -> str:
        folder = self.table.properties.get(MANIFEST_FOLDER, f"manifests/{self.table.uuid}")
        path = f"{folder}/{manifest.batch.batch_id}.{manifest.batch.epoch}.json"
        self.catalog.store.files[path] = manifest.to_json()
        return path

    def holding(self, rows: Collection[RowsOf]) -> Holding:
        return Holding() if self.base is None else Holding(self._holding(self.base, rows))

    def _holding(self, table: FakeTable, rows: Collection[RowsOf]) -> tuple[StoredData, ...]:
        return tuple(
            StoredData(f.path, f.rows, f.size_bytes)
            for f in table.data_files
            if {(r.key, r.batch_id) for r in rows} & self._whose(f)
        )

    def _whose(self, data_file: DataFile) -> set[tuple[object, object]]:
        """The files and batches that the rows of a data file name."""
        found = pq.read_table(io.BytesIO(self.catalog.store.read(data_file.path))).to_pylist()
        return {(row.get(FILE_PATH), row.get(BATCH_ID)) for row in found}

    def commit(self, order: CommitOrder) -> Committed:
        while True:
            now = self.catalog.store.get(self.name)
            self._refuse_or_pass(now, order)
            order.assert_lease()
            new, snapshot = self._next(now, order)
            with self.catalog.failpoints.step("commit_request"):
                swapped = self.catalog.store.swap(self.name, now, new)
            if swapped:
                break
        if self.catalog.lose_answers:
            raise CommitUnknownError
        return Committed(snapshot.id, snapshot.sequence_number, new.uuid, history_is_long=bool(new.going))

    def _refuse_or_pass(self, now: FakeTable | None, order: CommitOrder) -> None:
        if now is None:
            if self.base is not None:
                raise TableConflictError(f"The table {self.name} was dropped.")
            return
        if now.has(order.batch) and (self.base is None or now.uuid == self.base.uuid):
            raise AlreadyCommittedError
        if now.epoch(order.batch.ingestion_id) > order.batch.epoch:
            raise FencedError
        if self.base is None or now.uuid != self.base.uuid or now.schema != self.base.schema:
            raise TableConflictError(f"The table {self.name} was changed.")
        if order.removal.rows and set(self._holding(now, order.removal.rows)) != set(order.removal.looked_at):
            raise TableConflictError(f"Rows of {self.name} were moved.")

    def _next(self, now: FakeTable | None, order: CommitOrder) -> tuple[FakeTable, FakeSnapshot]:
        current = now or self.table
        gone = {one.path for one in order.removal.rewritten if one.removed}
        data_files = (
            *(f for f in current.data_files if f.path not in gone),
            *order.data_files,
            *order.removal.data_files,
        )
        snapshot = replace(
            self.catalog.snapshot(current, order.batch.batch_id, order.manifest_path), data_files=data_files
        )
        new = replace(
            current,
            schema=self.table.schema,
            last_field_id=self.table.last_field_id,
            properties={
                **current.properties,
                **order.properties,
                MANIFEST_FOLDER: order.manifest_path.rpartition("/")[0],
                last_batch_property(order.batch.ingestion_id): str(order.batch.number),
                epoch_property(order.batch.ingestion_id): str(order.batch.epoch),
                f"autoloader.{order.batch.ingestion_id}.last-manifest": order.manifest_path,
            },
            snapshots=(*current.snapshots, snapshot),
            data_files=data_files,
        )
        return new, snapshot


def _ref(batch_id: str, manifest_path: str) -> BatchRef:
    ingestion_id, _, number = batch_id.rpartition("-")
    return BatchRef(ingestion_id, int(number), int(manifest_path.rsplit(".", 2)[1]))


def _manifest_list(table: FakeTable, snapshot_id: int) -> str:
    return f"{table.location}/metadata/snap-{snapshot_id}.avro"


def _head(name: TableName, table: FakeTable) -> TableHead:
    current = table.current
    oldest = table.snapshots[0] if table.snapshots else None
    return TableHead(
        name=name,
        uuid=table.uuid,
        location=table.location,
        schema=table.schema,
        properties=dict(table.properties),
        snapshot_id=current.id if current else None,
        sequence_number=current.sequence_number if current else 0,
        ancestors=tuple(s.id for s in reversed(table.snapshots)),
        history_cut=oldest is not None and oldest.sequence_number > 1,
        oldest_sequence_number=oldest.sequence_number if oldest else 0,
    )


def _fresh(kind: DataType, next_id: Callable[[], int]) -> DataType:
    """`kind` with new ids throughout: all fields of a struct first, then what is inside them."""
    if isinstance(kind, Struct):
        numbered = [replace(f, id=next_id()) for f in kind.fields]
        return Struct(tuple(replace(f, type=_fresh(f.type, next_id)) for f in numbered))
    if isinstance(kind, ListOf):
        element_id = next_id()
        return replace(kind, element_id=element_id, element=_fresh(kind.element, next_id))
    if isinstance(kind, MapOf):
        key_id, value_id = next_id(), next_id()
        key, value = _fresh(kind.key, next_id), _fresh(kind.value, next_id)
        return replace(kind, key_id=key_id, value_id=value_id, key=key, value=value)
    return kind


def _numbered(kind: DataType, next_id: Callable[[], int]) -> DataType:
    """`kind` with ids where there are none yet."""
    if isinstance(kind, Struct):
        return Struct(tuple(_numbered_field(f, next_id) for f in kind.fields))
    if isinstance(kind, ListOf):
        return replace(kind, element=_numbered(kind.element, next_id))
    if isinstance(kind, MapOf):
        return replace(kind, value=_numbered(kind.value, next_id))
    return kind


def _numbered_field(column: Field, next_id: Callable[[], int]) -> Field:
    if column.id is None:
        column_id = next_id()
        return replace(column, id=column_id, type=_fresh(column.type, next_id))
    return replace(column, type=_numbered(column.type, next_id))
