"""What the guard says on some metadata, and which folders manifests go to."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

from app.destinations.manifests import folders, manifest_path
from app.destinations.refusal import Base, is_in, refusal
from app.destinations.schemas import to_iceberg
from app.domain.batch import BatchRef
from app.domain.errors import AlreadyCommittedError, FencedError, TableConflictError
from app.domain.types import LONG, Field, Struct


def metadata(properties: Mapping[str, str] | None = None, batches: tuple[str, ...] = ()) -> TableMetadata:
    """A table with these properties, and a snapshot for each batch id."""
    made = new_table_metadata(
        to_iceberg(Struct((Field("id", LONG),))),
        UNPARTITIONED_PARTITION_SPEC,
        UNSORTED_SORT_ORDER,
        "s3://bucket/sales/orders",
        dict(properties or {}),
    )
    snapshots = [
        Snapshot.model_validate(
            {
                "snapshot-id": number,
                "sequence-number": number,
                "timestamp-ms": 1_700_000_000_000 + number,
                "manifest-list": f"s3://bucket/{number}.avro",
                "summary": Summary(Operation.APPEND, **{"autoloader.batch-id": batch}),
            }
        )
        for number, batch in enumerate(batches, start=1)
    ]
    return made.model_copy(update={"snapshots": snapshots})


BATCH = BatchRef("nightly", 3, 2)


def verdict(now: TableMetadata, batch: BatchRef = BATCH, base: Base | None = None) -> type[Exception] | None:
    """The class of the refusal."""
    said = refusal(now, batch, base or Base.of(now), "sales.orders")
    return type(said) if said else None


@pytest.mark.parametrize(
    ("properties", "batches", "expected"),
    [
        ({}, (), None),
        ({"autoloader.nightly.last-batch": "2", "autoloader.nightly.epoch": "2"}, ("nightly-00000002",), None),
        ({"autoloader.nightly.last-batch": "3"}, (), AlreadyCommittedError),
        ({"autoloader.nightly.last-batch": "9"}, (), AlreadyCommittedError),
        ({"autoloader.other.last-batch": "9", "autoloader.other.epoch": "9"}, ("other-00000003",), None),
        ({}, ("nightly-00000003", "nightly-00000004"), AlreadyCommittedError),
        ({"autoloader.nightly.epoch": "3"}, (), FencedError),
        ({"autoloader.nightly.epoch": "3"}, ("nightly-00000003",), AlreadyCommittedError),
        ({"autoloader.nightly.epoch": "x", "autoloader.nightly.last-batch": "-1"}, (), None),
    ],
)
def test_what_speaks_against_a_batch(
    properties: dict[str, str], batches: tuple[str, ...], expected: type[Exception] | None
) -> None:
    assert verdict(metadata(properties, batches)) == expected


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_a_batch_passes_only_above_the_last_number_and_not_below_the_epoch(
    last: int, epoch: int, number: int, mine: int
) -> None:
    now = metadata({"autoloader.nightly.last-batch": str(last), "autoloader.nightly.epoch": str(epoch)})
    batch = BatchRef("nightly", number, mine)
    assert (verdict(now, batch) is None) == (number > last and mine >= epoch)
    assert is_in(now, batch) == (number <= last)


def test_another_table_of_the_name_is_a_conflict_even_if_it_has_the_batch() -> None:
    now = metadata({"autoloader.nightly.last-batch": "3"})
    assert verdict(now, base=Base.of(metadata())) is TableConflictError


@pytest.mark.parametrize("change", [{"current_schema_id": 7}, {"last_column_id": 7}])
def test_another_schema_is_a_conflict(change: dict[str, int]) -> None:
    now = metadata()
    assert verdict(now.model_copy(update=change), base=Base.of(now)) is TableConflictError


@pytest.mark.parametrize(
    ("location", "warehouse", "first"),
    [
        ("/home/w/sales/orders", "/home/w", "/home/w/.autoloader/manifests/U"),
        ("/home/w/sales/orders", "/home/w/", "/home/w/.autoloader/manifests/U"),
        ("/home/w2/orders", "/home/w", "/home/w2/orders-autoloader-manifests/U"),
        ("s3://b/sales/orders/", "", "s3://b/.autoloader/manifests/U"),
        ("s3://b/lake/sales/orders", "s3://b/lake", "s3://b/lake/.autoloader/manifests/U"),
        ("file:///home/w/orders", "", "file:///home/w/orders-autoloader-manifests/U"),
    ],
)
def test_manifests_are_kept_outside_the_tables_location_first(location: str, warehouse: str, first: str) -> None:
    candidates = list(folders(location, "U", warehouse))
    assert candidates[0] == first
    assert candidates[-1] == f"{location.rstrip('/')}/metadata"
    inside = [c for c in candidates if c.startswith(location.rstrip("/") + "/")]
    assert inside == candidates[-2:]


def test_each_try_has_a_manifest_of_its_own() -> None:
    assert manifest_path("s3://b/m/", BATCH) == "s3://b/m/nightly-00000003.2.json"
    assert manifest_path("s3://b/t/metadata", BATCH) == "s3://b/t/metadata/nightly-00000003.2.stats"
