from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime

import pytest

from app.domain.batch import BatchKind, BatchManifest, BatchRef
from app.domain.errors import Category
from app.domain.files import EarlierVersion, SourceFile
from app.domain.ports import DataFile, Removal, Rewritten
from app.domain.replacing import RowsOf, judge, rows_of, without_provenance

AT = datetime(2026, 1, 1, tzinfo=UTC)
NEW = SourceFile("s3://b/a", "v2", 10, AT)
OTHER = SourceFile("s3://b/b", "v1", 10, AT)
OLD = EarlierVersion("s3://b/a", "v1", "i-00000001", 5)
UNKNOWN = EarlierVersion("s3://b/a", "v1", "i-00000001", 5, provenance=None)
NAMELESS = EarlierVersion("s3://b/a", "v1", "i-00000001", 5, provenance=False)
ROWS = RowsOf("s3://b/a", "i-00000001")


@pytest.mark.parametrize(
    ("old", "count", "refused", "fewer"),
    [
        (OLD, 5, "", False),
        (OLD, 4, "", True),
        (OLD, 0, "", True),
        (OLD, 6, "holds 6 rows of this file by batch i-00000001, which loaded 5", False),
        (UNKNOWN, 5, "", False),
        (UNKNOWN, 1, "", True),
        (UNKNOWN, 0, "nobody knows", False),
        (UNKNOWN, 6, "holds 6 rows", False),
    ],
)
def test_rows_that_were_found_are_held_against_those_that_were_loaded(
    *, old: EarlierVersion, count: int, refused: str, fewer: bool
) -> None:
    verdict = judge((NEW, OTHER), (old,), {ROWS: count} if count else {}, {})
    assert set(verdict.refused) == ({NEW.key} if refused else set())
    for failure in verdict.refused.values():
        assert refused in failure.message
        assert (failure.version, failure.category, failure.retryable) == ("v2", Category.SCHEMA_MISMATCH, False)
    assert verdict.fewer == ((old,) if fewer else ())


def test_a_version_of_no_rows_needs_none() -> None:
    old = EarlierVersion("s3://b/a", "v1", "i-00000001", 0, provenance=None)
    verdict = judge((NEW,), (old,), {}, {})
    assert (verdict.refused, verdict.fewer) == ({}, ())


def test_one_version_that_must_stay_keeps_the_file_out() -> None:
    second = EarlierVersion("s3://b/a", "v0", "i-00000002", 1)
    verdict = judge((NEW,), (second, OLD), {ROWS: 5, RowsOf("s3://b/a", "i-00000002"): 1}, {ROWS: "No."})
    assert verdict.refused[NEW.key].message == "No."


def test_only_versions_known_to_name_no_file_are_refused_beforehand() -> None:
    assert set(without_provenance((NEW, OTHER), (OLD, UNKNOWN))) == set()
    assert set(without_provenance((NEW, OTHER), (NAMELESS,))) == {NEW.key}


def test_a_removal_adds_up_what_its_data_files_held() -> None:
    other = RowsOf("s3://b/b", "i-00000001")
    new = DataFile("new", 1, 1)
    removal = Removal(
        frozenset({ROWS, other}),
        (),
        (Rewritten("x", {ROWS: 1, other: 2}, (new,)), Rewritten("y", {ROWS: 3}), Rewritten("z")),
    )
    assert removal.found == {ROWS: 4, other: 2}
    assert removal.data_files == (new,)


def test_manifests_tell_what_was_replaced_and_older_ones_can_be_read() -> None:
    manifest = BatchManifest(BatchRef("i", 2, 1), 1, BatchKind.REPLACE, replaced=(OLD, UNKNOWN), provenance=True)
    assert BatchManifest.from_json(manifest.to_json()) == manifest
    assert rows_of(manifest.replaced) == {ROWS}
    document = json.loads(BatchManifest(BatchRef("i", 2, 1), 1).to_json())
    del document["replaced"], document["provenance"]
    older = BatchManifest.from_json(json.dumps(document).encode())
    assert (older.replaced, older.provenance, older.kind) == ((), None, BatchKind.LOAD)
    document["replaced"] = [{**asdict(OLD), "strange": 1}]
    with pytest.raises(ValueError, match="strange"):
        BatchManifest.from_json(json.dumps(document).encode())
