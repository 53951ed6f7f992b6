"""The guard before every commit, the library's own retries included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import AddSnapshotUpdate, AssertCurrentSchemaId, TableRequirement, TableUpdate

from app.destinations.refusal import Refused
from app.domain.errors import AutoloaderError, TableConflictError

# Looks at the metadata whose head an attempt asserts; None when nothing speaks against the commit.
Check = Callable[[TableMetadata], AutoloaderError | None]


class Guard:
    """Stands in for a table's catalog while one batch is committed.

    pyiceberg sends every attempt through `commit_table`, together with the table whose head this attempt asserts. So
    what is checked here is true when the commit is applied, or the commit fails.
    """

    def __init__(self, catalog: Catalog, check: Check | None, assert_lease: Callable[[], None]) -> None:
        """Guard one commit.

        Args:
            catalog: Where the commit goes.
            check: Says what speaks against it on some metadata; None where the commit makes the table.
            assert_lease: Raises when this run may not commit any more.
        """
        self._catalog = catalog
        self._check = check
        self._assert_lease = assert_lease
        self._uuid: UUID | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Everything else is the catalog's own affair."""
        return getattr(self._catalog, name)

    def attach(self, table: Table) -> Table:
        """Put the guard before all that `table` sends to its catalog."""
        table.catalog = cast("Catalog", self)
        return table

    def load_table(self, identifier: str | tuple[str, ...]) -> Table:
        """The table, for the next attempt.

        Raises:
            Refused: It is gone, or another one is there now; a refusal, so that what the last attempt wrote is removed.
        """
        name = identifier if isinstance(identifier, str) else ".".join(identifier)
        try:
            table = self._catalog.load_table(identifier)
        except NoSuchTableError as error:
            raise Refused(TableConflictError(f"The table {name} was dropped meanwhile.")) from error
        self._uuid = self._uuid or table.metadata.table_uuid
        if table.metadata.table_uuid != self._uuid:
            raise Refused(TableConflictError(f"The table {name} was replaced by another one meanwhile."))
        return self.attach(table)

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Commit, unless something speaks against it.

        Raises:
            Refused: Something does; nothing was changed.
            CommitFailedException: Somebody else was faster; nothing was changed.
        """
        self._refuse_or_pass(table.metadata)
        if self._check is not None:
            requirements = _with_schema(requirements, table.metadata)
        try:
            return self._catalog.commit_table(table, requirements, updates)
        except (CommitFailedException, TableAlreadyExistsError):
            # A commit can be applied and still be answered with a conflict: when the answer got lost and something on
            # the way sent it again. pyiceberg would then delete the manifests that the table lives on.
            landed = self._landed(table.name(), updates)
            if landed is None:
                raise
            return CommitTableResponse(metadata=landed.metadata, **{"metadata-location": landed.metadata_location})

    def _refuse_or_pass(self, metadata: TableMetadata) -> None:
        verdict = self._check(metadata) if self._check is not None else None
        if verdict is not None:
            raise Refused(verdict)
        try:
            self._assert_lease()
        except AutoloaderError as error:
            raise Refused(error) from error

    def _landed(self, identifier: tuple[str, ...], updates: tuple[TableUpdate, ...]) -> Table | None:
        own = [u.snapshot.snapshot_id for u in updates if isinstance(u, AddSnapshotUpdate)]
        try:
            table = self._catalog.load_table(identifier)
        except NoSuchTableError:
            return None
        found = own and all(table.metadata.snapshot_by_id(snapshot_id) is not None for snapshot_id in own)
        return self.attach(table) if found else None


def _with_schema(requirements: tuple[TableRequirement, ...], metadata: TableMetadata) -> tuple[TableRequirement, ...]:
    # A schema change by itself moves no head, so that the head alone would not notice one in the last moment.
    if any(isinstance(r, AssertCurrentSchemaId) for r in requirements):
        return requirements
    return (*requirements, AssertCurrentSchemaId.model_validate({"current-schema-id": metadata.current_schema_id}))
