"""What has to be true of source, ledger, table and storage, whatever was killed. Pure: findings in, faults out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from app.domain.definition import FIELDS
from tests.crash.kill.evidence import LedgerFound, Row, StorageFound, TableFound, doubled_batches
from tests.crash.kill.landing import Landed
from tests.crash.kill.versions import Kind, checksum

History = Mapping[str, Sequence[Landed]]
# Given a file's history, the numbers of its versions in the table and its states in the ledger by version: what is
# wrong with that when nothing is left to be done.
Expectation = Callable[[Sequence[Landed], set[int], dict[str, str]], str]


def unsound(history: History, found: TableFound) -> Iterator[str]:
    """What may never be seen in the table, not even between two kills."""
    for batch in doubled_batches(found):
        yield f"batch {batch} was committed more than once"
    by_file: dict[str | None, list[Row]] = defaultdict(list)
    for row in found.rows:
        by_file[row["_file_path"]].append(row)
    for key, rows in by_file.items():
        landed = history.get(str(key))
        if landed is None:
            yield f"{key}: {len(rows)} rows in the table, and no such file ever landed"
            continue
        for number, mine in _by_version(rows).items():
            yield from (f"{key}, version {number}: {fault}" for fault in _version_faults(landed, number, mine))


def _by_version(rows: Sequence[Row]) -> dict[int, list[Row]]:
    versions: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        versions[row["version"]].append(row)
    return versions


def _version_faults(landed: Sequence[Landed], number: int, rows: Sequence[Row]) -> Iterator[str]:
    version = next((one.version for one in landed if one.version.number == number), None)
    if version is None or version.kind is not Kind.GOOD:
        yield f"{len(rows)} rows in the table of a version that is {version.kind if version else 'unknown'}"
        return
    count = Counter(row["row"] for row in rows)
    if len(rows) != version.rows or set(count) != set(range(version.rows)):
        yield f"expected {version.rows} different rows, found {len(rows)} rows, {len(count)} of them different"
    broken = [row["row"] for row in rows if row["file"] != version.name or row["checksum"] != checksum(row)]
    if broken:
        yield f"rows with a wrong checksum: {broken[:5]}"
    batches = {row["_batch_id"] for row in rows}
    if len(batches) != 1:
        yield f"its rows are of several batches: {sorted(batches)}"


def unsettled(found: TableFound, ledger: LedgerFound, policy: str) -> Iterator[str]:
    """What may not be left when a run went through undisturbed and nobody is at work."""
    yield from (f"batch {b['number']} is open" for b in ledger.batches if b["state"] == "open")
    yield from (f"the lease is held by run {lease['run_id']}" for lease in ledger.leases if lease["run_id"])
    yield from (f"run {run['id']} is {run['status']}" for run in ledger.runs if run["status"] == "running")
    yield from (f"{file['key']} is {file['state']}" for file in ledger.files if file["state"] == "processing")
    in_table = Counter((row["_file_path"], row["_batch_id"]) for row in found.rows)
    in_ledger = {(f["key"], _batch_id(f)): f["rows"] for f in ledger.files if f["state"] == "success"}
    for key, batch in sorted(in_table.keys() | in_ledger.keys()):
        rows, known = in_table.get((key, batch), 0), in_ledger.get((key, batch), 0)
        if rows != known:
            yield f"{key}: the table has {rows} rows of it by batch {batch}, the ledger {known}"
    by_batch = Counter(row["_batch_id"] for row in found.rows)
    for batch in ledger.batches:
        expected = batch["rows"] if batch["state"] == "committed" else 0
        # Later batches take rows of it out again where they replace.
        if by_batch[_batch_id(batch)] > expected or (by_batch[_batch_id(batch)] < expected and policy != "replace"):
            yield (
                f"batch {batch['number']} is {batch['state']} with {expected} rows in the ledger, "
                f"and has {by_batch[_batch_id(batch)]} in the table"
            )


def _batch_id(row: Row) -> str:
    return f"{row['ingestion_id']}-{row['batch_number' if 'batch_number' in row else 'number']:08}"


def incomplete(history: History, found: TableFound, ledger: LedgerFound, expectation: Expectation) -> Iterator[str]:
    """Which files did not come to what they should, when a run went through after the last one landed."""
    states: dict[str, dict[str, str]] = defaultdict(dict)
    for file in ledger.files:
        states[file["key"]][file["version"]] = file["state"]
    yield from (f"{key} is in the ledger, and never landed" for key in sorted(states.keys() - history.keys()))
    versions: dict[str, set[int]] = defaultdict(set)
    for row in found.rows:
        versions[row["_file_path"]].add(row["version"])
    for key, landed in history.items():
        stamps = {one.stamp: one.version.number for one in landed}
        loaded = {stamps.get(version) for version, state in states[key].items() if state == "success"}
        if loaded != versions[key]:
            yield f"{key}: the ledger says that versions {loaded} are loaded, the table has {versions[key]}"
        fault = expectation(landed, versions[key], states[key])
        if fault:
            yield f"{key}: {fault} (landed: {_told(landed)}; table: {versions[key] or 'none'}; ledger: {states[key]})"


def _told(landed: Sequence[Landed]) -> str:
    return ", ".join(f"{one.version.number} {one.version.kind} {one.stamp}" for one in landed)


def ignore(landed: Sequence[Landed], loaded: set[int], states: dict[str, str]) -> str:
    """`on_file_change: ignore`: one version is loaded, the first that could be; a later one is noted."""
    if len(loaded) > 1:
        return "several versions are in the table"
    if landed[-1].version.number in loaded:
        return ""
    return _newest_is("changed" if loaded else _OUTCOMES[landed[-1].version.kind], landed, states)


def append(landed: Sequence[Landed], loaded: set[int], states: dict[str, str]) -> str:
    """`on_file_change: append`: whatever else was loaded, the newest version is."""
    newest = landed[-1].version
    if newest.kind is Kind.GOOD and newest.number not in loaded:
        return "the newest version is not in the table"
    return _newest_is(_OUTCOMES[newest.kind], landed, states)


def replace(landed: Sequence[Landed], loaded: set[int], states: dict[str, str]) -> str:
    """`on_file_change: replace`: the newest version is in the table and no other, unless there is nothing of it."""
    if len(loaded) > 1:
        return "several versions are in the table"
    return append(landed, loaded, states)


_OUTCOMES = {Kind.GOOD: "success", Kind.BAD: "failed", Kind.EMPTY: "skipped"}


def _newest_is(expected: str, landed: Sequence[Landed], states: dict[str, str]) -> str:
    state = states.get(landed[-1].stamp)
    return "" if state == expected else f"the newest version is {state}, not {expected}"


EXPECTATIONS: Mapping[str, Expectation] = {"ignore": ignore, "append": append, "replace": replace}
# Those that the program keeps.
(_POLICY,) = (field for field in FIELDS if field.name == "on_file_change")
POLICIES = tuple(name for name in EXPECTATIONS if name in (_POLICY.built or ()))


def differences(history: History, ledger: LedgerFound) -> dict[str, set[str]]:
    """Which files the program's own check of source, ledger and table has to name, by its kinds."""
    states = {(file["key"], file["version"]): file["state"] for file in ledger.files}
    found: dict[str, set[str]] = defaultdict(set)
    for key, landed in history.items():
        *earlier, newest = (states.get((key, one.stamp)) for one in landed)
        if newest != "success" and "success" in earlier:
            found["changed"].add(key)
        elif newest == "failed":
            found["failed"].add(key)
    return dict(found)


def orphaned(storage: StorageFound, ledger: LedgerFound) -> Iterator[str]:
    """What a sweep left beside the table that nothing names, and what is named and gone."""
    yield from (f"the data file {name} is left, and no snapshot names it" for name in storage.data - storage.named_data)
    yield from (f"the data file {name} is gone, and a snapshot names it" for name in storage.named_data - storage.data)
    empty = {_batch_id(batch) for batch in ledger.batches if batch["state"] == "empty"}
    for name, manifest in storage.stray_manifests.items():
        # One without files proves that nothing of its batch went in.
        if manifest.get("files") != [] or manifest.get("batch_id") not in empty:
            yield f"the manifest {name} is left, and no snapshot names it"
