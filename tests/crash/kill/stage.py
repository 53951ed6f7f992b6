"""How far a run had come when it was killed, by what it left."""

from __future__ import annotations

from dataclasses import dataclass

from tests.crash.kill.evidence import find_traces
from tests.crash.kill.places import Place


@dataclass(frozen=True)
class Before:
    """The lease's epoch before a run began."""

    epoch: int

    @classmethod
    def of(cls, place: Place) -> Before:
        """As it is now."""
        return cls(_lease(place)[0])


def _lease(place: Place) -> tuple[int, str | None]:
    rows = place.ledger("select epoch, run_id from leases")
    return (int(rows[0]["epoch"]), rows[0]["run_id"]) if rows else (0, None)


def stage(place: Place, before: Before) -> str:  # noqa: PLR0911 - one for each stage
    """The stage that a run which was alone had reached when it died."""
    epoch, run_id = _lease(place)
    if epoch <= before.epoch:
        return "before the lease"
    if run_id is None:
        return "lease given back"
    batches = place.ledger(
        f"select ingestion_id, number, state, epoch, run_id from batches where state = 'open' or run_id = '{run_id}' "
        "order by number"
    )
    last = next((b for b in batches if b["state"] == "open"), None)
    if last is None:
        return "between batches, or at the end" if batches else "lease taken, nothing claimed"
    batch_id = f"{last['ingestion_id']}-{last['number']:08}"
    traces = find_traces(place, batch_id, epoch)
    if traces is None:
        return "claimed, the table not made yet"
    if traces.committed:
        return "in the table, not in the ledger"
    if traces.manifest:
        return "manifest written, not in the table"
    return "data files, no manifest yet" if traces.data else "claimed, no data file yet"
