"""Ledger against table, file by file: two streams in one order, neither ever held whole. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from app.domain.files import FileState, LedgerFile
from app.domain.upkeep import StoredFile


class DifferenceKind(enum.StrEnum):
    """In what a file's listing, ledger and table disagree. The values are part of the report."""

    NOT_LOADED = "not_loaded"  # listed, and not loaded
    FAILED = "failed"  # listed, and left out because it failed
    CHANGED = "changed"  # listed in another version than the one that was loaded
    NOT_IN_TABLE = "not_in_table"  # loaded by the ledger, and the table has no row of it
    NOT_IN_LEDGER = "not_in_ledger"  # the table has rows of it, and the ledger did not load it
    ROWS_DIFFER = "rows_differ"  # the numbers of rows are not the same


@dataclass(frozen=True, slots=True)
class Difference:
    """One file that is not what it should be; rows are None where they are not known."""

    kind: DifferenceKind
    key: str | None
    version: str | None = None
    ledger_rows: int | None = None
    table_rows: int | None = None
    batches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compared:
    """One file, on both sides. `key` None stands for the rows that name no file."""

    key: str | None
    ledger_rows: int | None
    table_rows: int
    difference: Difference | None


def compare_files(ledger: Iterable[LedgerFile], table: Iterable[StoredFile]) -> Iterator[Compared]:
    """Put to each file that was loaded its rows in the table, and the other way round.

    Args:
        ledger: The ledger's rows, every state, in key order.
        table: The table's, in key order.
    """
    loaded = (f for f in ledger if f.state is FileState.SUCCESS)
    ours = ((key, list(versions)) for key, versions in groupby(loaded, key=lambda f: f.key))
    theirs = ((key, list(parts)) for key, parts in groupby(table, key=lambda f: f.key))
    mine, there = next(ours, None), next(theirs, None)
    while mine is not None or there is not None:
        if there is not None and (mine is None or _order(there[0]) < _order(mine[0])):
            yield _stranger(*there)
            there = next(theirs, None)
        elif mine is not None and (there is None or _order(mine[0]) < _order(there[0])):
            yield _compared(mine[0], mine[1], [])
            mine = next(ours, None)
        elif mine is not None and there is not None:
            yield _compared(mine[0], mine[1], there[1])
            mine, there = next(ours, None), next(theirs, None)


def _order(key: str | None) -> bytes:
    return b"" if key is None else key.encode()


def _stranger(key: str | None, parts: list[StoredFile]) -> Compared:
    rows = sum(p.rows for p in parts)
    if key is None:
        # Rows of another writer: no file of a source is theirs, so no file differs.
        return Compared(None, None, rows, None)
    batches = tuple(sorted({p.batch_id for p in parts if p.batch_id}))
    return Compared(key, None, rows, Difference(DifferenceKind.NOT_IN_LEDGER, key, None, None, rows, batches))


def _compared(key: str, versions: list[LedgerFile], parts: list[StoredFile]) -> Compared:
    expected: dict[str | None, int] = {}
    for version in versions:
        expected[version.batch_id] = expected.get(version.batch_id, 0) + (version.rows or 0)
    found: dict[str | None, int] = {}
    for part in parts:
        found[part.batch_id] = found.get(part.batch_id, 0) + part.rows
    ledger_rows, table_rows = sum(expected.values()), sum(found.values())
    # By batch: a version that is there twice must not make up for another that is missing.
    same = {b: n for b, n in expected.items() if n} == {b: n for b, n in found.items() if n}
    if same:
        return Compared(key, ledger_rows, table_rows, None)
    kind = DifferenceKind.ROWS_DIFFER if table_rows else DifferenceKind.NOT_IN_TABLE
    wrong = sorted({b for b in {*expected, *found} if b and expected.get(b, 0) != found.get(b, 0)})
    return Compared(
        key, ledger_rows, table_rows, Difference(kind, key, versions[-1].version, ledger_rows, table_rows, tuple(wrong))
    )
