"""Which files beside a table are leftovers of ours. Pure: names and states in, verdicts out.

A file is a leftover only where everything speaks for it: its name is one that we give, the batch in it is one of this
table and closed, it is older than any lease, and no snapshot names it. What cannot be told is kept.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from app.domain.batch import BatchRef
from app.domain.upkeep import BatchCommit

_DATA_FILE = re.compile(r"(\d{8,})-(\d+)-[0-9a-f]{8}(?:-\d+){2,4}\.parquet")
_MANIFEST = re.compile(r"(\d{8,})\.(\d+)\.(?:json|stats)")
# What a process that is killed while it writes a manifest leaves in a local folder.
_PART = re.compile(r"\.(.+)\.[0-9a-f]{32}\.part")


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch as the ledger has it."""

    ingestion_id: str
    number: int
    generation: int
    is_open: bool
    # Nothing of it went into the table.
    is_empty: bool


def data_file_batch(name: str, ingestions: Collection[str]) -> BatchRef | None:
    """The try of a batch of one of `ingestions` that wrote the data file of that name; None where none did."""
    return _batch_of(name, ingestions, _DATA_FILE)


def manifest_batch(name: str, ingestions: Collection[str]) -> BatchRef | None:
    """The try of a batch that wrote the manifest of that name, or the unfinished one; None where none did."""
    part = _PART.fullmatch(name)
    return _batch_of(part[1] if part else name, ingestions, _MANIFEST)


def is_unfinished(name: str) -> bool:
    """Whether a manifest of that name was never written to its end."""
    return _PART.fullmatch(name) is not None


def _batch_of(name: str, ingestions: Collection[str], rest: re.Pattern[str]) -> BatchRef | None:
    for ingestion_id in ingestions:
        prefix = f"{ingestion_id}-"
        found = rest.fullmatch(name, len(prefix)) if name.startswith(prefix) else None
        if found is not None:
            batch = BatchRef(ingestion_id, int(found[1]), int(found[2]))
            # Only the spelling that we give a number is ours.
            return batch if name.startswith(batch.batch_id) else None
    return None


@dataclass(frozen=True)
class Sweeping:
    """What is known when leftovers are told from files in use."""

    records: Mapping[tuple[str, int], BatchRecord]
    generation: int
    # Ingestion id → number of its last batch, by the table's own properties.
    last_batches: Mapping[str, int]
    commits: tuple[BatchCommit, ...]
    # What was modified later may belong to a process at work.
    older_than: datetime

    def is_closed(self, batch: BatchRef) -> bool:
        """Whether nobody may commit the batch any more.

        The ledger decides about batches it has; of those of a generation before this one it does not know which table
        they went into, so they count as open. Of any other batch the table's property is the proof: batches commit in
        the order of their numbers.
        """
        record = self.records.get((batch.ingestion_id, batch.number))
        if record is not None:
            return not record.is_open and record.generation == self.generation
        return batch.number <= self.last_batches.get(batch.ingestion_id, 0)

    def is_leftover_manifest(self, batch: BatchRef, *, lists_files: bool) -> bool:
        """Whether a manifest of that try, of a closed batch, tells of files that this try did not bring in.

        A manifest without files is kept: it is the proof that nothing went in.
        """
        committed = {c.batch.epoch for c in self.commits if c.batch.batch_id == batch.batch_id}
        if committed:
            return batch.epoch not in committed
        record = self.records.get((batch.ingestion_id, batch.number))
        return record is not None and record.is_empty and lists_files
