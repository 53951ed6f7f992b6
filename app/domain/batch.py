"""A batch: files that commit together, in one Iceberg commit, or not at all; and its manifest."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, field

from app.domain.errors import Category, FileFailure
from app.domain.files import LoadedFile

MANIFEST_FORMAT = 1


class BatchKind(enum.StrEnum):
    """What a batch does to its table."""

    LOAD = "load"


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
            "files": [asdict(f) for f in self.files],
            "failed": [asdict(f) for f in self.failed],
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
            )
        except (KeyError, TypeError) as error:
            raise ValueError("This is a batch manifest with parts that are missing or strange.") from error
