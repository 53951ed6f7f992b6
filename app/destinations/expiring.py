"""Let go of old snapshots, and find afterwards what they alone held on to.

The metadata forgets a snapshot for good. So which ones are to go is noted beside the table before they do: what a note
names and the metadata does not is what we expired, and nobody else's.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from pyiceberg.catalog import Catalog, MetastoreCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestFile, read_manifest_list
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import (
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotsUpdate,
    TableRequirement,
    ValidatableTableRequirement,
)

from app.destinations.draft import Target, load_guarded
from app.destinations.guard import Guard
from app.destinations.history import going
from app.destinations.refusal import fenced
from app.destinations.sink import write_whole
from app.destinations.storage import list_folder
from app.destinations.translation import committing, translated
from app.domain.batch import BatchRef
from app.domain.errors import TableConflictError
from app.domain.table import MANIFEST_FOLDER
from app.domain.upkeep import Expired, StoredObject

_FORMAT = 1
# Where notes lie in a folder of their own they need no prefix; beside metadata they have to be told from it.
_PREFIX = "autoloader-expired-"
_MANIFEST = re.compile(r"(.*/[0-9a-f-]{36}-m)(\d{1,4})\.avro")


def expire(target: Target, batch: BatchRef, assert_lease: Callable[[], None]) -> int:
    """Let go of the snapshots that may, in one commit; raises as the port `Catalog` says.

    Returns:
        How many went.
    """
    guard = Guard(
        target.catalog,
        lambda metadata: fenced(metadata, batch),
        assert_lease,
        failpoints=target.failpoints,
        step="expiry_request",
    )
    table = load_guarded(guard, target)
    metadata = guard.whole(table)
    verdict = fenced(metadata, batch)
    if verdict is not None:
        raise verdict
    ids = going(metadata)
    folder = metadata.properties.get(MANIFEST_FOLDER)
    if not ids or not folder:
        return 0
    with target.failpoints.step("expiry_noted"):
        _Note.of(metadata, ids).write(folder, table.io)
    update = RemoveSnapshotsUpdate.model_validate({"action": "remove-snapshots", "snapshot-ids": list(ids)})
    requirements = _as_seen(target.catalog, metadata, ids)
    try:
        with translated(committing, target.name):
            # pyiceberg has no public way for an update that was put together elsewhere.
            table._do_commit((update,), requirements)  # noqa: SLF001
    except CommitFailedException as error:
        raise TableConflictError(f"Another writer of {target.name} was faster.") from error
    return len(ids)


def _as_seen(catalog: Catalog, metadata: TableMetadata, ids: Iterable[int]) -> tuple[TableRequirement, ...]:
    """That no branch and no tag was made or moved since, so that none loses its snapshot."""
    refs = [
        AssertRefSnapshotId.model_validate({"ref": name, "snapshot-id": ref.snapshot_id})
        for name, ref in metadata.refs.items()
    ]
    seen: tuple[TableRequirement, ...] = (AssertTableUUID(uuid=metadata.table_uuid), *refs)
    if not isinstance(catalog, MetastoreCatalog):
        # A server's requirements cannot say that there is no other tag.
        return seen
    return (*seen, cast("TableRequirement", _NothingElse(refs=frozenset(metadata.refs), ids=frozenset(ids))))


class _NothingElse(ValidatableTableRequirement):
    """Held by catalogs that work inside this process: no other branches and tags, and the snapshots are all there."""

    type: Literal["autoloader-nothing-else"] = "autoloader-nothing-else"
    refs: frozenset[str]
    ids: frozenset[int]

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]  # as its siblings have it
        """Raise CommitFailedException where the table is not as it was seen."""
        there = {s.snapshot_id for s in base_metadata.snapshots} if base_metadata else set()
        if base_metadata is None or set(base_metadata.refs) - self.refs or self.ids - there:
            raise CommitFailedException("Requirement failed: branches, tags or snapshots have changed")


# --- notes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Gone:
    """A snapshot that was to go."""

    id: int
    manifest_list: str
    # Whether it took nothing out of the table.
    only_adds: bool

    def manifests(self, io: FileIO) -> tuple[ManifestFile, ...]:
        """What its manifest list names; nothing where that is gone itself."""
        try:
            return tuple(read_manifest_list(io.new_input(self.manifest_list)))
        except FileNotFoundError:
            return ()


@dataclass(frozen=True)
class _Note:
    """Which snapshots one commit lets go, written down before it."""

    table_uuid: str
    gone: tuple[_Gone, ...]

    @classmethod
    def of(cls, metadata: TableMetadata, ids: Iterable[int]) -> _Note:
        named = frozenset(ids)
        return cls(
            str(metadata.table_uuid),
            tuple(
                _Gone(s.snapshot_id, s.manifest_list, bool(s.summary and s.summary.operation is Operation.APPEND))
                for s in metadata.snapshots
                if s.snapshot_id in named
            ),
        )

    @classmethod
    def read(cls, path: str, io: FileIO) -> _Note | None:
        """The note at `path`; None where there is none, or where it is not one of ours."""
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError), io.new_input(path).open() as stream:
            document: dict[str, Any] = json.loads(stream.read())
            if document["format"] == _FORMAT:
                gone = (_Gone(s["id"], s["manifest_list"], s["only_adds"]) for s in document["snapshots"])
                return cls(document["table_uuid"], tuple(gone))
        return None

    def write(self, folder: str, io: FileIO) -> None:
        """Put it into the folder of the batches' manifests."""
        document = {
            "format": _FORMAT,
            "table_uuid": self.table_uuid,
            "snapshots": [{"id": g.id, "manifest_list": g.manifest_list, "only_adds": g.only_adds} for g in self.gone],
        }
        write_whole(_note_path(folder), json.dumps(document).encode(), io)


def _note_folder(folder: str) -> str:
    folder = folder.rstrip("/")
    return folder if folder.endswith("/metadata") else f"{folder}/expired"


def _note_path(folder: str) -> str:
    place = _note_folder(folder)
    # As with manifests: some storage takes nothing but what it knows from Iceberg.
    suffix = "stats" if place.endswith("/metadata") else "json"
    return f"{place}/{_PREFIX}{uuid.uuid4().hex}.{suffix}"


def _notes(table: Table) -> Iterator[tuple[StoredObject, _Note]]:
    """The notes beside the table that are the table's own."""
    folder = table.metadata.properties.get(MANIFEST_FOLDER)
    for file in list_folder(_note_folder(folder), table.io) if folder else ():
        note = _Note.read(file.path, table.io) if file.name.startswith(_PREFIX) else None
        if note is not None and note.table_uuid == str(table.metadata.table_uuid):
            yield file, note


# --- what is left of them ---------------------------------------------------------------------------------------------


def expired(table: Table, before: datetime) -> Expired:
    """What the snapshots that were noted before a moment, and that are gone, left behind.

    Raises:
        OSError: The storage does not answer.
    """
    notes = list(_notes(table))
    old = [(file, note) for file, note in notes if file.modified_at < before]
    if not old:
        return Expired()
    io, snapshots = table.io, table.metadata.snapshots
    young = {gone.id: gone for file, note in notes if file.modified_at >= before for gone in note.gone}
    there = {s.snapshot_id for s in snapshots} | young.keys()
    gone = {one.id: (one, file.modified_at) for file, note in old for one in note.gone if one.id not in there}
    held = {m.manifest_path for s in snapshots for m in s.manifests(io)}
    held.update(m.manifest_path for one in young.values() for m in one.manifests(io))
    manifests: dict[str, StoredObject] = {}
    lists: list[StoredObject] = []
    for one, noted_at in gone.values():
        for manifest in one.manifests(io):
            path = manifest.manifest_path
            if path not in held:
                manifests.setdefault(path, StoredObject(path, manifest.manifest_length, noted_at))
            if manifest.added_snapshot_id == one.id:
                for merged in _merged(path):
                    if merged not in held and merged not in manifests:
                        manifests.update((f.path, f) for f in _there(merged, noted_at, io))
        lists.extend(_there(one.manifest_list, noted_at, io))
    # In an order in which a sweep that is broken off can be done again: lists name manifests, and notes name lists.
    files = (*manifests.values(), *lists, *(file for file, _ in old))
    return Expired(files, frees_data=not all(one.only_adds for one, _ in gone.values()))


def _merged(path: str) -> Iterator[str]:
    """Manifests that the commit which wrote this one may have written before it and merged at once: no list names them.

    pyiceberg numbers what a commit writes.
    """
    numbered = _MANIFEST.fullmatch(path)
    if numbered is not None:
        yield from (f"{numbered[1]}{number}.avro" for number in range(int(numbered[2])))


def _there(path: str, noted_at: datetime, io: FileIO) -> Iterator[StoredObject]:
    with suppress(FileNotFoundError):
        yield StoredObject(path, len(io.new_input(path)), noted_at)


def noted_manifests(table: Table) -> Iterator[ManifestFile]:
    """The manifests of snapshots that went and whose files are still there: a reader may be at work on them.

    Raises:
        OSError: The storage does not answer.
    """
    there = {s.snapshot_id for s in table.metadata.snapshots}
    for _, note in _notes(table):
        for one in note.gone:
            if one.id not in there:
                yield from one.manifests(table.io)
