"""A table: its name, and what its catalog says of it now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.domain.errors import InvalidFieldError
from app.domain.types import Struct


@dataclass(frozen=True, slots=True)
class TableName:
    """`catalog`, then a namespace of one or more levels, then the table."""

    catalog: str
    namespace: tuple[str, ...]
    name: str

    def __str__(self) -> str:
        return ".".join((self.catalog, *self.namespace, self.name))

    @property
    def within_catalog(self) -> str:
        """The name without the catalog, as printed queries use it."""
        return ".".join((*self.namespace, self.name))


def parse_table_name(text: str, *, default_catalog: str) -> TableName:
    """Read `[catalog.]db.table`.

    Args:
        text: What the user wrote. Two parts name a table of the default catalog; of three or more, the first names
            the catalog.
        default_catalog: The catalog of a name that gives none.

    Raises:
        InvalidFieldError: There are fewer than two parts, or one is empty.
    """
    parts = text.split(".")
    if len(parts) < 2 or not all(part.strip() for part in parts):  # noqa: PLR2004
        raise InvalidFieldError(
            f"{text!r} is no table name.",
            remedy="Write database.table or catalog.database.table, such as sales.orders.",
        )
    if any(ord(c) < 32 or c in "/\\" for c in text):  # noqa: PLR2004
        raise InvalidFieldError(f"{text!r} is no table name: it has a slash or a control character.")
    if len(parts) == 2:  # noqa: PLR2004
        return TableName(default_catalog, (parts[0],), parts[1])
    return TableName(parts[0], tuple(parts[1:-1]), parts[-1])


@dataclass(frozen=True)
class TableHead:
    """A table as its catalog shows it at one moment."""

    name: TableName
    uuid: str
    location: str
    schema: Struct
    properties: Mapping[str, str]
    snapshot_id: int | None
    sequence_number: int
    # Ids of the ancestors of the current snapshot, newest first, as far as the metadata still knows them, itself
    # included; `history_cut` says that the chain ends at a parent that was expired.
    ancestors: tuple[int, ...] = ()
    history_cut: bool = False
    # Sequence number of the oldest of `ancestors`.
    oldest_sequence_number: int = 0


LAST_BATCH = "last-batch"
EPOCH = "epoch"
SNAPSHOT_BATCH_ID = "autoloader.batch-id"
SNAPSHOT_EPOCH = "autoloader.epoch"
SNAPSHOT_MANIFEST = "autoloader.manifest"
MANIFEST_FOLDER = "autoloader.manifests"
LOAD_INGESTION = "autoloader.load-ingestion"
SCHEMA_VERSION = "autoloader.schema-version"


def last_batch_property(ingestion_id: str) -> str:
    """Name of the table property that holds the number of the ingestion's last committed batch."""
    return f"autoloader.{ingestion_id}.{LAST_BATCH}"


def epoch_property(ingestion_id: str) -> str:
    """Name of the table property that holds the highest epoch that may commit for the ingestion."""
    return f"autoloader.{ingestion_id}.{EPOCH}"


def last_batches(properties: Mapping[str, str]) -> dict[str, int]:
    """Ingestion id → number of its last batch, for every ingestion that ever loaded the table."""
    prefix, suffix = "autoloader.", f".{LAST_BATCH}"
    return {
        name[len(prefix) : -len(suffix)]: int(value)
        for name, value in properties.items()
        if name.startswith(prefix) and name.endswith(suffix) and value.isdecimal()
    }
