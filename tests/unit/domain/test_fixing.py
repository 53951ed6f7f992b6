from __future__ import annotations

from typing import Any

import pytest

from app.domain.fixing import changed_fixed_fields

TABLE = "local.db.t"


def changed(wanted: dict[str, Any], *, table: str = TABLE, before: dict[str, Any] | None = None) -> list[str]:
    return changed_fixed_fields(TABLE, before or {}, wanted_table=table, wanted=wanted)


@pytest.mark.parametrize(
    ("table", "fields"),
    [
        (TABLE, []),
        ("lake.db.t", ["destination.catalog"]),
        ("local.db.inner.t", ["destination.database"]),
        ("local.db.t2", ["destination.table"]),
        ("a.b.c", ["destination.catalog", "destination.database", "destination.table"]),
    ],
)
def test_another_table_is_told_by_the_parts_of_its_name(table: str, fields: list[str]) -> None:
    assert changed({}, table=table) == fields


def test_what_counts_when_the_table_is_made_is_fixed() -> None:
    assert changed({"destination": {"provenance": False}}) == ["destination.provenance"]
    assert changed({}, before={"destination": {"provenance": False}}) == ["destination.provenance"]
    sampled: dict[str, Any] = {"format": {"schema": {"sample_bytes": 7}}}
    assert changed(sampled) == ["format.schema.sample_bytes"]
    assert changed(sampled, before=sampled) == []


def test_a_default_is_the_same_whether_it_is_written_or_left_out() -> None:
    written = {"destination": {"catalog": "local", "provenance": True, "write_mode": "append"}}
    assert changed(written) == changed({}, before=written) == []


def test_the_rest_may_change() -> None:
    document = {"source": {"path": "s3://b/", "on_file_change": "append"}, "format": {"options": {"header": False}}}
    assert changed({**document, "name": "n", "schedule": {"frequency": "hourly"}}) == []
