"""Rows of an earlier version that a new one takes the place of. Pure: what is known and found in, verdicts out.

Rows are named by file and batch together. A batch loads a file in one version at most, so the pair names exactly the
rows of one version, and never those of another file or of another writer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from app.domain.errors import Category, FileFailure
from app.domain.files import EarlierVersion, SourceFile


@dataclass(frozen=True, slots=True, order=True)
class RowsOf:
    """The rows that one batch loaded of one file."""

    key: str
    batch_id: str


@dataclass(frozen=True, slots=True)
class StoredData:
    """A data file of a table. `deletes` are files of other tools that say which of its rows do not count any more."""

    path: str
    rows: int
    size_bytes: int
    deletes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Holding:
    """The data files that may hold certain rows; and which of the rows cannot be taken out, and why."""

    data_files: tuple[StoredData, ...] = ()
    refused: Mapping[RowsOf, str] = field(default_factory=dict)


def rows_of(earlier: Iterable[EarlierVersion]) -> frozenset[RowsOf]:
    """The rows of these versions."""
    return frozenset(RowsOf(e.key, e.batch_id) for e in earlier)


def without_provenance(files: Sequence[SourceFile], earlier: Sequence[EarlierVersion]) -> dict[str, FileFailure]:
    """Key → why a new version cannot replace an earlier one whose rows do not name their file."""
    nameless = {e.key for e in earlier if e.provenance is False}
    reason = (
        "An earlier version of this file was loaded without provenance: its rows do not name their file and cannot be "
        "told from others, so they stay, and the new version was not loaded."
    )
    return {f.key: _failure(f, reason) for f in files if f.key in nameless}


@dataclass(frozen=True)
class Verdict:
    """What a count of the rows that were found means.

    `refused` are the files whose earlier rows must stay, by key; `fewer` those of whose rows some were gone already.
    """

    refused: Mapping[str, FileFailure]
    fewer: tuple[EarlierVersion, ...] = ()


def judge(
    files: Sequence[SourceFile],
    earlier: Sequence[EarlierVersion],
    found: Mapping[RowsOf, int],
    barred: Mapping[RowsOf, str],
) -> Verdict:
    """Hold the rows that were found against those that were loaded.

    Args:
        files: The new versions.
        earlier: The versions that they replace.
        found: How many rows there are of each.
        barred: Rows that cannot be taken out, and why.
    """
    reasons: dict[str, str] = {}
    fewer = []
    for version in earlier:
        rows = RowsOf(version.key, version.batch_id)
        count = found.get(rows, 0)
        reason = barred.get(rows) or _reason(version, count)
        if reason is not None:
            reasons.setdefault(version.key, reason)
        elif count < version.rows:
            fewer.append(version)
    return Verdict({f.key: _failure(f, reasons[f.key]) for f in files if f.key in reasons}, tuple(fewer))


def _reason(version: EarlierVersion, count: int) -> str | None:
    if count > version.rows:
        return (
            f"The table holds {count} rows of this file by batch {version.batch_id}, which loaded {version.rows}: "
            "nobody can tell which ones to take out, so all stay, and the new version was not loaded. "
            "`autoloader ledger check` shows where they differ."
        )
    if count == 0 and version.rows and version.provenance is None:
        return (
            f"The table holds no row that names this file and batch {version.batch_id}, and nobody knows whether that "
            "batch was loaded without provenance: the new version was not loaded, lest rows are there twice."
        )
    return None


def _failure(file: SourceFile, reason: str) -> FileFailure:
    return FileFailure(file.key, file.version, Category.SCHEMA_MISMATCH, reason)
