"""Whether a table is still the one that the ledger knows. Pure: the ledger's record and the head in, an error out."""

from __future__ import annotations

from collections.abc import Mapping

from app.domain.errors import LedgerBehindTableError, TableReplacedError, TableRolledBackError
from app.domain.runs import TableRecord
from app.domain.table import TableHead, last_batches


def check_identity(record: TableRecord, head: TableHead | None) -> None:
    """Refuse a table that is gone or another one, or that was rolled back behind our last commit.

    Raises:
        TableReplacedError: It is gone, or has another uuid.
        TableRolledBackError: Its history no longer holds our last commit, and that history reaches back far enough
            to say so.
    """
    if record.uuid is None:
        return
    if head is None:
        raise TableReplacedError(f"The table {record.name} is gone, although the ledger knows files loaded into it.")
    if head.uuid != record.uuid:
        raise TableReplacedError(
            f"The table {record.name} was made anew: the ledger knows {record.uuid}, the catalog has {head.uuid}."
        )
    if record.snapshot_id is not None and _lost(record.snapshot_id, record.sequence_number, head):
        raise TableRolledBackError(
            f"The table {record.name} was rolled back: its history does not hold snapshot {record.snapshot_id}, "
            "our last commit."
        )


def _lost(snapshot_id: int, sequence_number: int, head: TableHead) -> bool:
    if snapshot_id in head.ancestors:
        return False
    if head.sequence_number < sequence_number:
        return True
    # A chain that snapshot expiry cut after our commit is no evidence; one that reaches back behind it is.
    return not head.history_cut or head.oldest_sequence_number <= sequence_number


def check_batches(table: str, head: TableHead | None, given_out: Mapping[str, int]) -> None:
    """Refuse a table that holds batches which the ledger lacks: loading would put their rows in twice.

    Args:
        table: Its name, for the message.
        head: The table.
        given_out: Ingestion id → the highest number of a batch that may be in the table, as the ledger knows.

    Raises:
        LedgerBehindTableError: It does.
    """
    if head is None:
        return
    for ingestion_id, number in sorted(last_batches(head.properties).items()):
        known = given_out.get(ingestion_id)
        if known is None:
            raise LedgerBehindTableError(
                f"The table {table} holds batches of ingestion {ingestion_id}, up to number {number}, "
                "of which this ledger knows nothing."
            )
        if number > known:
            raise LedgerBehindTableError(
                f"The table {table} holds batch {number} of ingestion {ingestion_id}; this ledger knows only {known}."
            )
