"""Whether a table is still the one that the ledger knows. Pure: the ledger's record and the head in, an error out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

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


def check_batches(
    table: str, head: TableHead | None, given_out: Mapping[str, int], foreign: Collection[str] = ()
) -> None:
    """Refuse a table that holds batches which the ledger lacks: loading would put their rows in twice.

    Args:
        table: Its name, for the message.
        head: The table.
        given_out: Ingestion id → the highest number of a batch that may be in the table, as the ledger knows.
        foreign: Ingestions of other installations; what they load is their own affair.

    Raises:
        LedgerBehindTableError: It does.
    """
    for ingestion_id, number in batches_behind(table, head, given_out, foreign).items():
        raise LedgerBehindTableError(
            f"The table {table} holds batch {number} of ingestion {ingestion_id}; "
            f"this ledger knows only {given_out.get(ingestion_id, 0)}.",
            remedy=f"`autoloader load` rebuilds the ledger by itself; so does `autoloader ledger rebuild {table}`.",
        )


def batches_behind(
    table: str, head: TableHead | None, given_out: Mapping[str, int], foreign: Collection[str] = ()
) -> dict[str, int]:
    """Ingestions of ours of which the table holds batches that the ledger lacks, with the number of the last one.

    Args:
        table: Its name, for the message.
        head: The table.
        given_out: As for `check_batches`; its ingestions are ours.
        foreign: Ingestions of other installations.

    Raises:
        LedgerBehindTableError: The table holds batches of an ingestion of which nobody here knows.
    """
    behind = {}
    for ingestion_id, number in sorted(last_batches(head.properties).items() if head else ()):
        known = given_out.get(ingestion_id)
        if known is None and ingestion_id not in foreign:
            raise LedgerBehindTableError(
                f"The table {table} holds batches of ingestion {ingestion_id}, up to number {number}, "
                "of which this ledger knows nothing.",
                remedy=(
                    "Use the database that loaded them (check AUTOLOADER_HOME and DATABASE_URL). If it is lost, "
                    f"`autoloader ledger rebuild {table} --adopt {ingestion_id}` takes them over; if another "
                    f"installation goes on loading them, `--not-ours {ingestion_id}` says so."
                ),
            )
        if known is not None and number > known:
            behind[ingestion_id] = number
    return behind
