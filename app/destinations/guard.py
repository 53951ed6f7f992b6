"""The guard before every commit, the library's own retries included."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast
from uuid import UUID

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.io import FileIO
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import AddSnapshotUpdate, AssertCurrentSchemaId, TableRequirement, TableUpdate

from app.destinations.refusal import Refused
from app.destinations.slim import history, slim
from app.destinations.translation import translated, unwritten
from app.domain.errors import AutoloaderError, TableConflictError, WriteFailureError
from app.domain.failpoints import NO_FAILPOINTS, Failpoints, Step

# Looks at the metadata whose head an attempt asserts; None when nothing speaks against the commit.
Check = Callable[[TableMetadata], AutoloaderError | None]


class Guard:
    """Stands in for a table's catalog while one batch is committed.

    pyiceberg sends every attempt through `commit_table`, together with the table whose head this attempt asserts. So
    what is checked here is true when the commit is applied, or the commit fails.

    The tables that it gives out are slim: their metadata has no history but what happens while the commit is being
    made. What is checked is the whole.
    """

    def __init__(
        self,
        catalog: Catalog,
        check: Check | None,
        assert_lease: Callable[[], None],
        *,
        failpoints: Failpoints = NO_FAILPOINTS,
        step: Step = "commit_request",
    ) -> None:
        """Guard one commit.

        Args:
            catalog: Where the commit goes.
            check: Says what speaks against it on some metadata; None where the commit makes the table.
            assert_lease: Raises when this run may not commit any more.
            failpoints: For tests.
            step: What a request is called there.
        """
        self._catalog = catalog
        self._check = check
        self._assert_lease = assert_lease
        self._failpoints = failpoints
        self._step = step
        self._uuid: UUID | None = None
        # As it was loaded last, and what of its history was there at first.
        self._loaded: tuple[str, TableMetadata] | None = None
        self._history: frozenset[int] | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Everything else is the catalog's own affair."""
        return getattr(self._catalog, name)

    def attach(self, table: Table) -> Table:
        """Put the guard before all that `table` sends to its catalog."""
        table.catalog = cast("Catalog", self)
        return table

    def load_table(self, identifier: str | tuple[str, ...]) -> Table:
        """The table, slim, for the next attempt.

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
        whole = table.metadata
        self._loaded = (table.metadata_location, whole)
        self._history = history(whole) if self._history is None else self._history
        table.metadata = slim(whole, self._history)
        return self.attach(table)

    def whole(self, table: Table) -> TableMetadata:
        """The metadata of a table that was given out, with its history."""
        if self._loaded is not None and self._loaded[0] == table.metadata_location:
            return self._loaded[1]
        # What a catalog answered to a commit, or what the commit is to make, was never made slim.
        return table.metadata

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Commit, unless something speaks against it.

        Raises:
            Refused: Something does, or the commit could not be written down; nothing was changed.
            CommitFailedException: Somebody else was faster; nothing was changed.
        """
        self._refuse_or_pass(self.whole(table))
        if self._check is not None:
            requirements = _with_schema(requirements, table.metadata)
        try:
            unwritten_here = partial(unwritten, catalog=self._catalog, location=table.metadata.location)
            with self._failpoints.step(self._step), translated(unwritten_here, ".".join(table.name())):
                return self._catalog.commit_table(table, requirements, updates)
        except WriteFailureError as error:
            raise Refused(error) from error
        except (CommitFailedException, TableAlreadyExistsError):
            # A commit can be applied and still be answered with a conflict: when the answer got lost and something on
            # the way sent it again. pyiceberg would then delete the manifests that the table lives on.
            landed = self._landed(table.name(), updates)
            if landed is None:
                raise
            return CommitTableResponse(metadata=landed.metadata, **{"metadata-location": landed.metadata_location})

    def _delete_old_metadata(self, io: FileIO, base: TableMetadata, metadata: TableMetadata) -> None:
        """Remove the metadata files that a commit lets go of; called by pyiceberg, with a base that is slim."""
        whole = self._loaded[1] if self._loaded is not None else base
        self._catalog._delete_old_metadata(io, whole, metadata)  # noqa: SLF001  # as pyiceberg calls it

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
