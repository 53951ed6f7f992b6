"""A batch: files that commit together, in one Iceberg commit, or not at all; and its manifest."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, field

from app.domain.errors import Category, FileFailure
from app.domain.files import EarlierVersion, LoadedFile

MANIFEST_FORMAT = 1


class BatchKind(enum.StrEnum):
    """What a batch does to its table."""

    LOAD = "load"
    # As a load, and takes out the rows of earlier versions of its files in the same commit.
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class BatchRef:
    """Names a batch and the right to commit it.

    `number` rises by one within the ingestion; `epoch` is the fencing token of the lease it was claimed under.
    """

    ingestion_id: str
    number: int
    epoch: int

    @property
    def batch_id(self) -> str:
        """The same for every try of the batch."""
        return f"{self.ingestion_id}-{self.number:08d}"


@dataclass(frozen=True)
class BatchManifest:
    """The truth about a committed batch, kept beside the table: which files it loaded, and which it left out."""

    batch: BatchRef
    generation: int
    kind: BatchKind = BatchKind.LOAD
    files: tuple[LoadedFile, ...] = ()
    failed: tuple[FileFailure, ...] = field(default=())
    # Versions whose rows this batch took out.
    replaced: tuple[EarlierVersion, ...] = ()
    # Whether the batch's rows name their file and batch; None where the manifest is too old to say.
    provenance: bool | None = True

    def to_json(self) -> bytes:
        """One JSON document, readable by later versions."""
        document = {
            "format": MANIFEST_FORMAT,
            "batch_id": self.batch.batch_id,
            "ingestion_id": self.batch.ingestion_id,
            "number": self.batch.number,
            "epoch": self.batch.epoch,
            "generation": self.generation,
            "kind": self.kind.value,
            # By hand: there may be ten thousand, and the general way copies each value of each.
            "files": [
                {"key": f.key, "version": f.version, "rows": f.rows, "size_bytes": f.size_bytes} for f in self.files
            ],
            "failed": [asdict(f) for f in self.failed],
            "replaced": [asdict(f) for f in self.replaced],
            "provenance": self.provenance,
        }
        # ASCII only: a message may quote half of a surrogate pair from a file, which no encoding writes.
        return json.dumps(document).encode()

    @classmethod
    def from_json(cls, data: bytes) -> BatchManifest:
        """The manifest that `to_json` wrote.

        Raises:
            ValueError: It is no manifest, or of a later format.
        """
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("format") != MANIFEST_FORMAT:
            raise ValueError("This is no batch manifest that this version can read.")
        try:
            return cls(
                batch=BatchRef(document["ingestion_id"], document["number"], document["epoch"]),
                generation=document["generation"],
                kind=BatchKind(document["kind"]),
                files=tuple(LoadedFile(**f) for f in document["files"]),
                failed=tuple(FileFailure(**{**f, "category": Category(f["category"])}) for f in document["failed"]),
                # Manifests of versions that replaced nothing have no such part.
                replaced=tuple(EarlierVersion(**f) for f in document.get("replaced", ())),
                provenance=document.get("provenance"),
            )
        except (KeyError, TypeError) as error:
            raise ValueError("This is a batch manifest with parts that are missing or strange.") from error
