from __future__ import annotations

import pytest

from app.domain.comparison import DifferenceKind, compare_files
from app.domain.files import FileState, LedgerFile
from app.domain.upkeep import StoredFile


def ledger(key: str, rows: int, batch: str = "i-1", state: FileState = FileState.SUCCESS) -> LedgerFile:
    return LedgerFile(key, "v1", state, rows=rows, batch_id=batch)


def differences(known: list[LedgerFile], stored: list[StoredFile]) -> list[tuple[str | None, DifferenceKind]]:
    return [(c.key, c.difference.kind) for c in compare_files(known, stored) if c.difference]


def test_what_agrees_is_no_difference() -> None:
    known = [ledger("a", 2), ledger("b", 0), ledger("c", 1), ledger("d", 7, state=FileState.FAILED)]
    stored = [StoredFile(None, None, 5), StoredFile("a", "i-1", 2), StoredFile("c", "i-1", 1)]
    compared = list(compare_files(known, stored))
    assert [(c.key, c.ledger_rows, c.table_rows) for c in compared] == [
        (None, None, 5),
        ("a", 2, 2),
        ("b", 0, 0),
        ("c", 1, 1),
    ]
    assert not [c for c in compared if c.difference]


@pytest.mark.parametrize(
    ("known", "stored", "kind"),
    [
        ([ledger("a", 2)], [], DifferenceKind.NOT_IN_TABLE),
        ([ledger("a", 2)], [StoredFile("a", "i-1", 1)], DifferenceKind.ROWS_DIFFER),
        ([ledger("a", 2)], [StoredFile("a", "i-1", 4)], DifferenceKind.ROWS_DIFFER),
        ([ledger("a", 2)], [StoredFile("a", "i-1", 1), StoredFile("a", "i-2", 1)], DifferenceKind.ROWS_DIFFER),
        ([ledger("a", 0)], [StoredFile("a", "i-1", 1)], DifferenceKind.ROWS_DIFFER),
        ([], [StoredFile("a", "i-1", 1)], DifferenceKind.NOT_IN_LEDGER),
        ([ledger("a", 2, state=FileState.FAILED)], [StoredFile("a", "i-1", 2)], DifferenceKind.NOT_IN_LEDGER),
    ],
)
def test_each_kind_is_told(known: list[LedgerFile], stored: list[StoredFile], kind: DifferenceKind) -> None:
    before, behind = ledger("0", 1), ledger("z", 1)
    around = [StoredFile("0", "i-1", 1), *stored, StoredFile("z", "i-1", 1)]
    assert differences([before, *known, behind], around) == [("a", kind)]


def test_two_versions_are_compared_batch_by_batch() -> None:
    """One that is there twice does not make up for another that is gone."""
    known = [ledger("a", 2, "i-1"), ledger("a", 2, "i-2")]
    assert differences(known, [StoredFile("a", "i-1", 2), StoredFile("a", "i-2", 2)]) == []
    (compared,) = compare_files(known, [StoredFile("a", "i-1", 4)])
    assert compared.difference is not None
    assert (compared.difference.ledger_rows, compared.difference.table_rows) == (4, 4)
    assert compared.difference.batches == ("i-1", "i-2")


def test_times_of_one_file_and_batch_are_added_up() -> None:
    stored = [StoredFile("a", "i-1", 1, None), StoredFile("a", "i-1", 1, None)]
    assert differences([ledger("a", 2)], stored) == []


def test_order_is_that_of_bytes() -> None:
    """U+FFFF sorts below the characters behind it in UTF-8, and above them in UTF-16."""
    keys = ["a", "a\uffff", "a\U00010000", "é"]
    known = [ledger(key, 1) for key in keys]
    assert differences(known, [StoredFile(key, "i-1", 1) for key in keys]) == []
