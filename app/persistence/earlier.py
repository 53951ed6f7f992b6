"""Loaded versions of files that a batch brings new versions of: found at its claim, and frozen with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from app.domain.batch import BatchRef
from app.domain.files import EarlierVersion, FileState
from app.persistence.schema import batches, files


def find_earlier(connection: Connection, ingestion_id: str, number: int) -> tuple[EarlierVersion, ...]:
    """The versions that are in the table of files that the batch has claimed in another one, in key order."""
    new, old = files.alias("new"), files.alias("old")
    same_file = (
        (old.c.table_id == new.c.table_id)
        & (old.c.generation == new.c.generation)
        & (old.c.key == new.c.key)
        & (old.c.version != new.c.version)
    )
    rows = connection.execute(
        select(old.c.key, old.c.version, old.c.rows, old.c.ingestion_id, old.c.batch_number)
        .select_from(new.join(old, same_file))
        .where(
            new.c.ingestion_id == ingestion_id,
            new.c.batch_number == number,
            new.c.state == FileState.PROCESSING.value,
            old.c.state == FileState.SUCCESS.value,
        )
        .order_by(old.c.key, old.c.version)
    ).all()
    provenance = _provenance(connection, {(row.ingestion_id, row.batch_number) for row in rows})
    return tuple(
        EarlierVersion(
            row.key,
            row.version,
            BatchRef(row.ingestion_id, row.batch_number, 0).batch_id,
            row.rows or 0,
            provenance.get((row.ingestion_id, row.batch_number)),
        )
        for row in rows
    )


def _provenance(connection: Connection, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], bool]:
    """Of those batches of which it is known, whether their rows name their file."""
    statement = select(batches.c.definition).where(
        batches.c.ingestion_id == bindparam("ingestion_id"), batches.c.number == bindparam("number")
    )
    known = {}
    for ingestion_id, number in wanted:
        text = connection.execute(statement, {"ingestion_id": ingestion_id, "number": number}).scalar_one_or_none()
        provenance = json.loads(text or "{}").get("provenance")
        if provenance is not None:
            known[ingestion_id, number] = bool(provenance)
    return known


def to_text(earlier: Sequence[EarlierVersion]) -> str | None:
    """What a batch keeps of them."""
    return json.dumps([asdict(one) for one in earlier]) if earlier else None


def from_text(text: str | None) -> tuple[EarlierVersion, ...]:
    """What `to_text` wrote."""
    return tuple(EarlierVersion(**one) for one in json.loads(text)) if text else ()


def supersede(connection: Connection, table_id: int, generation: int, replaced: Sequence[EarlierVersion]) -> None:
    """Note that the rows of these versions are in the table no more. One that another batch loaded again stays."""
    values: list[dict[str, Any]] = []
    for one in replaced:
        ingestion_id, _, number = one.batch_id.rpartition("-")
        values.append(
            {"the_key": one.key, "the_version": one.version, "the_ingestion": ingestion_id, "the_number": int(number)}
        )
    if values:
        connection.execute(
            update(files)
            .where(
                files.c.table_id == table_id,
                files.c.generation == generation,
                files.c.key == bindparam("the_key"),
                files.c.version == bindparam("the_version"),
                files.c.ingestion_id == bindparam("the_ingestion"),
                files.c.batch_number == bindparam("the_number"),
                files.c.state == FileState.SUCCESS.value,
            )
            .values(state=FileState.SUPERSEDED.value),
            values,
        )
