"""What is counted for good: it stays true when the rows that it was counted from are gone.

Counters are written after every other row of a transaction, and before its event: two transactions then take them in
the same order, and never wait for each other both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, select

from app.domain.runs import RunStatus
from app.persistence.schema import counters
from app.persistence.store import insert_into

# Seconds of a run: how many took no longer than each, and longer than the one before.
DURATION_BOUNDS_S = (1, 5, 15, 60, 300, 900, 3600)
LONGER = "+Inf"

Counted = Mapping[tuple[str, str], int]


def count(connection: Connection, counted: Counted) -> None:
    """Add to counters, by name and label."""
    rows = [{"name": name, "label": label, "value": value} for (name, label), value in sorted(counted.items()) if value]
    if not rows:
        return
    statement = insert_into(counters, connection.dialect.name).values(rows)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name", "label"], set_={"value": counters.c.value + statement.excluded.value}
        )
    )


def of_end(status: RunStatus, duration_s: float) -> dict[tuple[str, str], int]:
    """What the end of a run counts."""
    bound = next((str(bound) for bound in DURATION_BOUNDS_S if duration_s <= bound), LONGER)
    return {
        ("runs_ended", status.value): 1,
        ("run_duration", bound): 1,
        ("run_duration_ms", ""): max(round(duration_s * 1000), 0),
    }


def of_batch(files: Iterable[Any], failed: int) -> dict[tuple[str, str], int]:
    """What a batch counts that was closed: its loaded files, and how many failed."""
    loaded = list(files)
    return {
        ("files", "loaded"): len(loaded),
        ("files", "failed"): failed,
        ("rows", ""): sum(file.rows for file in loaded),
        ("bytes", ""): sum(file.size_bytes for file in loaded),
    }


def all_counters(connection: Connection) -> dict[str, dict[str, int]]:
    """Every counter, by name and label."""
    found: dict[str, dict[str, int]] = {}
    for name, label, value in connection.execute(select(counters.c.name, counters.c.label, counters.c.value)):
        found.setdefault(name, {})[label] = value
    return found
