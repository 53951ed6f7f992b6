"""Which data files of a table may hold the rows that certain files and batches put in: by their metrics alone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pyiceberg.conversions import from_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile as IcebergDataFile
from pyiceberg.manifest import DataFileContent, FileFormat, ManifestEntry
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.types import StringType

from app.domain.errors import AutoloaderError, CatalogUnreachableError, TableConflictError
from app.domain.ports import Removal
from app.domain.replacing import Holding, RowsOf, StoredData
from app.domain.system_columns import BATCH_ID, FILE_PATH

# Id of the column by which position deletes name the data file; the format reserves it.
_DELETED_PATH = 2147483546


@dataclass(frozen=True)
class Held:
    """A data file of the table, the rows it may hold, and the delete files of other tools that apply to it."""

    data_file: IcebergDataFile
    rows: frozenset[RowsOf]
    deletes: frozenset[IcebergDataFile] = frozenset()

    @property
    def stored(self) -> StoredData:
        """The same in the domain's words."""
        file = self.data_file
        return StoredData(
            file.file_path, file.record_count, file.file_size_in_bytes, frozenset(d.file_path for d in self.deletes)
        )

    @property
    def refusal(self) -> str | None:
        """Why rows cannot be taken out of it; None when they can."""
        path = self.data_file.file_path
        if any(d.content is DataFileContent.EQUALITY_DELETES for d in self.deletes):
            return (
                f"Another tool deleted rows of the data file {path} by equality, and only such a tool knows which: "
                "have it compact the table (rewrite its data files), then load again."
            )
        if any(f.file_format is not FileFormat.PARQUET for f in (self.data_file, *self.deletes)):
            return (
                f"The data file {path}, or what another tool deleted of it, is no Parquet file: "
                "have that tool rewrite the table's data files as Parquet, then load again."
            )
        return None


@dataclass(frozen=True)
class HeldAll:
    """Every data file that may hold any of the rows that were asked for."""

    files: tuple[Held, ...] = ()

    @property
    def by_path(self) -> dict[str, IcebergDataFile]:
        """The data files as the table's manifests have them."""
        return {held.data_file.file_path: held.data_file for held in self.files}

    @property
    def stored(self) -> frozenset[StoredData]:
        """The data files, to be compared with those of another moment."""
        return frozenset(held.stored for held in self.files)

    def holding(self) -> Holding:
        """What can be taken out of where, and what cannot."""
        refused: dict[RowsOf, str] = {}
        for held in self.files:
            if held.refusal is not None:
                refused |= dict.fromkeys(held.rows, held.refusal)
        usable = tuple(held.stored for held in self.files if held.refusal is None)
        return Holding(usable, refused)


def held(metadata: TableMetadata, io: FileIO, rows: Collection[RowsOf]) -> HeldAll:
    """The data files of the metadata's current snapshot that may hold any of `rows`.

    Raises:
        OSError: A manifest cannot be read.
    """
    snapshot = metadata.current_snapshot()
    columns = {f.name.lower(): f.field_id for f in metadata.schema().fields}
    if snapshot is None or not rows or not {FILE_PATH, BATCH_ID} <= columns.keys():
        return HeldAll()
    wanted = _Wanted(rows, columns[FILE_PATH], columns[BATCH_ID])
    data: list[tuple[ManifestEntry, frozenset[RowsOf]]] = []
    deletes: list[ManifestEntry] = []
    for manifest in snapshot.manifests(io):
        for entry in manifest.fetch_manifest_entry(io, discard_deleted=True):
            if entry.data_file.content is not DataFileContent.DATA:
                deletes.append(entry)
            elif found := wanted.within(entry.data_file):
                data.append((entry, found))
    return HeldAll(
        tuple(Held(e.data_file, found, frozenset(d.data_file for d in deletes if _applies(d, e))) for e, found in data)
    )


class _Wanted:
    """Rows that are looked for."""

    def __init__(self, rows: Collection[RowsOf], path_id: int, batch_id: int) -> None:
        self._rows = sorted(rows)
        self._keys = [r.key for r in self._rows]
        self._path_id = path_id
        self._batch_id = batch_id

    def within(self, file: IcebergDataFile) -> frozenset[RowsOf]:
        """Those that the data file may hold."""
        paths, batches = _bounds(file, self._path_id), _bounds(file, self._batch_id)
        if paths is None or batches is None:
            return frozenset()
        first = 0 if paths.low is None else bisect_left(self._keys, paths.low)
        last = len(self._keys) if paths.high is None else bisect_right(self._keys, paths.high)
        return frozenset(r for r in self._rows[first:last] if batches.hold(r.batch_id))


@dataclass(frozen=True)
class _Bounds:
    """Between what a file's values of a column lie; None where that is not known."""

    low: str | None = None
    high: str | None = None

    def hold(self, value: str) -> bool:
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)


def _bounds(file: IcebergDataFile, column: int) -> _Bounds | None:
    """The bounds of a column; None where it holds nothing but NULL. Cut bounds still enclose every value."""
    nulls: Mapping[int, int] = file.null_value_counts or {}
    if nulls.get(column) == file.record_count:
        return None
    low, high = (bounds.get(column) for bounds in (file.lower_bounds or {}, file.upper_bounds or {}))
    return _Bounds(_text(low), _text(high))


def _text(bound: bytes | None) -> str | None:
    return None if bound is None else str(from_bytes(StringType(), bound))


def _applies(deleting: ManifestEntry, data: ManifestEntry) -> bool:
    """Whether a delete file may say something of a data file."""
    file, theirs, ours = deleting.data_file, deleting.sequence_number or 0, data.sequence_number or 0
    if file.content is DataFileContent.EQUALITY_DELETES:
        return theirs > ours
    paths = _bounds(file, _DELETED_PATH)
    return theirs >= ours and paths is not None and paths.hold(data.data_file.file_path)


class Whereabouts:
    """Watches, over the attempts of one commit, that the rows which it takes out are where they were looked for."""

    def __init__(self, removal: Removal, io: FileIO, table: str) -> None:
        self._removal = removal
        self._io = io
        self._table = table
        self._changed = {one.path for one in removal.rewritten if one.removed}
        self._looked_at = frozenset(removal.looked_at)
        # The snapshot of which this was found to be so.
        self._seen: int | None = None
        # The data files that the commit takes out, as the table's manifests have them.
        self.gone: tuple[IcebergDataFile, ...] = ()

    def refusal(self, metadata: TableMetadata) -> AutoloaderError | None:
        """Why the rows cannot be taken out of this metadata's table as planned; None when they can."""
        snapshot_id = metadata.current_snapshot_id
        if not self._removal.rows or (snapshot_id is not None and snapshot_id == self._seen):
            return None
        try:
            now = held(metadata, self._io, self._removal.rows)
        except OSError as error:
            return CatalogUnreachableError(f"The manifests of {self._table} cannot be read: {error}.")
        if now.stored != self._looked_at:
            return TableConflictError(f"Rows of {self._table} that are to be replaced were moved by another writer.")
        by_path = now.by_path
        self.gone = tuple(by_path[path] for path in sorted(self._changed))
        self._seen = snapshot_id
        return None
