"""Tables that are about to be made: their location, their first metadata."""

from __future__ import annotations

import re
from hashlib import sha256

from pyiceberg.catalog import Catalog as Inner
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import StagedTable, Table
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

from app.destinations.draft import Target
from app.destinations.schemas import to_iceberg
from app.domain.types import Struct

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_\-]+")


def stage(inner: Inner, target: Target, schema: Struct, properties: dict[str, str]) -> Table:
    """A table that is ready to be made; the catalog does not show it yet."""
    location = _own_location(inner, target)
    if location is None:
        transaction = inner.create_table_transaction(target.identifier, to_iceberg(schema), properties=properties)
        return transaction._table  # noqa: SLF001  # there is no public way to the staged table
    metadata = new_table_metadata(
        to_iceberg(schema), UNPARTITIONED_PARTITION_SPEC, UNSORTED_SORT_ORDER, location, dict(properties)
    )
    io = inner._load_file_io(metadata.properties, location)  # noqa: SLF001  # as the catalog's own staging does
    return StagedTable(target.identifier, metadata, f"{location}/metadata/00000.metadata.json", io, inner)


def _own_location(inner: Inner, target: Target) -> str | None:
    """A location where the catalog's own would not do: for nested namespaces, and names that are no plain paths."""
    if not isinstance(inner, MetastoreCatalog):
        return None
    *namespace, name = target.identifier
    if len(namespace) == 1 and all(_PLAIN_NAME.fullmatch(part) for part in target.identifier):
        return None
    root = inner.load_namespace_properties(tuple(namespace)).get("location")
    if root is None and not target.warehouse:
        raise ValueError("it has no warehouse, and the namespace has no location")
    parents = () if root else namespace
    return "/".join([(root or target.warehouse).rstrip("/"), *(_path_part(part) for part in (*parents, name))])


def _path_part(name: str) -> str:
    if _PLAIN_NAME.fullmatch(name):
        return name
    # Blanks, quotes and the like confuse readers of paths. The digest keeps apart what would fall together.
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}-{sha256(name.encode()).hexdigest()[:8]}"
