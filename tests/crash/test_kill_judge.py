"""What judges a series of kills finds each of the things that may not be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.crash.kill.evidence import LedgerFound, StorageFound, TableFound
from tests.crash.kill.judge import EXPECTATIONS, differences, incomplete, orphaned, unsettled, unsound
from tests.crash.kill.landing import Landed
from tests.crash.kill.versions import FORMATS, Kind, Version

INGESTION = "a" * 32
KEY = "file:///landing/f.json"
FIRST, SECOND = Version("f.json", 1, 3), Version("f.json", 2, 5, extras=("depth",))
BAD, EMPTY = replace(SECOND, kind=Kind.BAD), replace(SECOND, kind=Kind.EMPTY)


def history(*versions: Version) -> dict[str, list[Landed]]:
    return {KEY: [Landed(version, f"v{version.number}") for version in versions]}


def rows(version: Version, batch: int = 1) -> list[dict[str, Any]]:
    """What the table has when it is loaded."""
    added = {"_file_path": KEY, "_batch_id": f"{INGESTION}-{batch:08}"}
    return [{"depth": None} | record | added for record in version.records()]


def table(*found: dict[str, Any]) -> TableFound:
    return TableFound(list(found), [{"autoloader.batch-id": f"{INGESTION}-00000001"}])


def ledger(*, state: str = "success", batch_state: str = "committed", rows: int = 3) -> LedgerFound:
    """A ledger that knows the first version by batch 1."""
    known = {"ingestion_id": INGESTION, "number": 1, "state": batch_state, "rows": rows}
    file = {"key": KEY, "version": "v1", "state": state, "rows": 3, "ingestion_id": INGESTION, "batch_number": 1}
    return LedgerFound([file], [known], [{"run_id": None}], [{"id": "r", "status": "success"}])


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    landed, found = history(FIRST), table(*rows(FIRST))
    assert list(unsound(landed, found)) == []
    assert list(unsettled(found, ledger(), "ignore")) == []
    assert list(incomplete(landed, found, ledger(), EXPECTATIONS["ignore"])) == []
    assert differences(landed, ledger()) == {}


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (rows(FIRST) + rows(FIRST), "expected 3 different rows, found 6 rows, 3 of them different"),
        (rows(FIRST)[:2], "expected 3 different rows, found 2 rows"),
        (rows(FIRST)[:2] + rows(FIRST)[:1], "found 3 rows, 2 of them different"),
        (rows(FIRST)[:1] + rows(SECOND)[1:], "version 2: expected 5"),
        ([rows(FIRST)[0] | {"pad": "x"}, *rows(FIRST)[1:]], "wrong checksum: [0]"),
        ([rows(SECOND)[0] | {"depth": None}, *rows(SECOND)[1:]], "wrong checksum: [0]"),
        (rows(FIRST)[:1] + rows(FIRST, batch=2)[1:], "several batches"),
        ([row | {"version": 7} for row in rows(FIRST)], "unknown"),
        ([row | {"_file_path": "file:///g.json"} for row in rows(FIRST)], "no such file ever landed"),
    ],
)
def test_what_may_never_be_in_a_table(found: list[dict[str, Any]], fault: str) -> None:
    assert any(fault in found_fault for found_fault in unsound(history(FIRST, SECOND), table(*found)))


def test_what_else_may_never_be_in_a_table() -> None:
    assert "that is bad" in next(unsound(history(FIRST, BAD), table(*rows(BAD))))
    twice = TableFound(rows(FIRST), [{"autoloader.batch-id": "b"}, {}, {"autoloader.batch-id": "b"}])
    assert next(unsound(history(FIRST), twice)) == "batch b was committed more than once"


@pytest.mark.parametrize(
    ("found", "known", "fault"),
    [
        (rows(FIRST), ledger(state="processing"), "is processing"),
        (rows(FIRST), ledger(state="discovered"), "the table has 3 rows of it"),
        ([], ledger(), "the table has 0 rows of it"),
        (rows(FIRST), ledger(rows=4), "has 3 in the table"),
        (rows(FIRST), ledger(batch_state="open"), "batch 1 is open"),
        (rows(FIRST), replace(ledger(), leases=[{"run_id": "r"}]), "the lease is held"),
        (rows(FIRST), replace(ledger(), runs=[{"id": "r", "status": "running"}]), "run r is running"),
    ],
)
def test_what_may_not_be_left_open(found: list[dict[str, Any]], known: LedgerFound, fault: str) -> None:
    assert any(fault in found_fault for found_fault in unsettled(table(*found), known, "ignore"))


@pytest.mark.parametrize(
    ("policy", "versions", "loaded", "states", "right"),
    [
        ("ignore", (FIRST, SECOND), {1}, {"v1": "success", "v2": "changed"}, True),
        ("ignore", (FIRST, SECOND), {2}, {"v2": "success"}, True),
        ("ignore", (FIRST, SECOND), {1}, {"v1": "success"}, False),
        ("ignore", (FIRST, SECOND), {1, 2}, {"v1": "success", "v2": "success"}, False),
        ("ignore", (FIRST, SECOND), set(), {}, False),
        ("ignore", (BAD,), set(), {"v2": "failed"}, True),
        ("ignore", (EMPTY,), set(), {"v2": "skipped"}, True),
        ("ignore", (BAD,), set(), {"v2": "success"}, False),
        ("append", (FIRST, SECOND), {1, 2}, {"v1": "success", "v2": "success"}, True),
        ("append", (FIRST, SECOND), {1}, {"v1": "success", "v2": "changed"}, False),
        ("replace", (FIRST, SECOND), {2}, {"v1": "superseded", "v2": "success"}, True),
        ("replace", (FIRST, SECOND), {1, 2}, {"v1": "success", "v2": "success"}, False),
        ("replace", (FIRST, SECOND), {1}, {"v1": "success"}, False),
        ("replace", (FIRST, BAD), {1}, {"v1": "success", "v2": "failed"}, True),
    ],
)
def test_what_becomes_of_changed_files(
    policy: str, versions: tuple[Version, ...], loaded: set[int], states: dict[str, str], *, right: bool
) -> None:
    assert (EXPECTATIONS[policy](history(*versions)[KEY], loaded, states) == "") is right


def test_ledger_and_table_name_the_same_versions() -> None:
    found = incomplete(history(FIRST), table(), ledger(), EXPECTATIONS["ignore"])
    assert "the ledger says that versions {1} are loaded" in next(found)


def test_what_a_check_has_to_name() -> None:
    assert differences(history(FIRST, SECOND), ledger()) == {"changed": {KEY}}
    assert differences(history(FIRST), ledger(state="failed")) == {"failed": {KEY}}


def test_what_a_sweep_may_not_leave() -> None:
    name = f"{INGESTION}-00000001.1.json"
    manifest = {"files": [], "batch_id": f"{INGESTION}-00000001"}
    assert list(orphaned(StorageFound({"a"}, {"a"}), ledger())) == []
    assert "a is left" in next(orphaned(StorageFound({"a"}, set()), ledger()))
    assert "a is gone" in next(orphaned(StorageFound(set(), {"a"}), ledger()))
    assert "is left" in next(orphaned(StorageFound(stray_manifests={name: manifest}), ledger()))
    empty = ledger(batch_state="empty")
    assert list(orphaned(StorageFound(stray_manifests={name: manifest}), empty)) == []
    assert "is left" in next(orphaned(StorageFound(stray_manifests={name: manifest | {"files": [1]}}), empty))


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_version_is_the_same_bytes_again(file_format: str) -> None:
    version = Version(f"f.{file_format}", 1, 20, extras=("width",))
    assert version.content() == version.content() != replace(version, number=2).content()
    assert replace(version, kind=Kind.BAD).content() != version.content()
