"""A batch's files under a schema that grows: the engine looks at a sample, and what it missed shows when it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.domain.errors import Category
from app.domain.files import SourceFile
from app.domain.ports import Inference, Progress, Reading, WriteOrder, WriteResult
from app.domain.runs import RunStatus
from app.domain.types import EMPTY, Struct, join_structs
from app.services.writing import MAX_ROUNDS
from tests.fakes.engine import FakeEngine
from tests.unit.services.desk import TABLE, Desk


class ShortSighted(FakeEngine):
    """Its sample is the first file, and each order ends at the first file that drifts: rounds as data in bulk makes."""

    def infer(self, files: Sequence[SourceFile], reading: Reading, known: Struct = EMPTY) -> Inference:
        return super().infer(sorted(files, key=lambda f: f.order)[:1], reading, known)

    def write(self, order: WriteOrder, progress: Progress) -> WriteResult:
        whole = WriteResult()
        for number, file in enumerate(order.files):
            one = replace(order, files=(file,), name_prefix=f"{order.name_prefix}-{number}")
            result = super().write(one, progress)
            whole = WriteResult(
                whole.data_files + result.data_files,
                whole.loaded + result.loaded,
                whole.failed + result.failed,
                whole.drifted + result.drifted,
                join_structs(whole.drift, result.drift),
            )
            if whole.drifted:
                return replace(whole, drifted=(*whole.drifted, *order.files[number + 1 :]))
        return whole


@pytest.fixture
def short(desk: Desk) -> Desk:
    desk.engine = ShortSighted()
    return desk


def assert_whole(desk: Desk) -> None:
    report = desk.load()
    assert report.status is RunStatus.SUCCESS, report
    assert_ids_agree(desk)
    assert desk.ids() == desk.source_ids()
    assert desk.snapshots() == 1
    assert not desk.orphans()
    table = desk.store.get(TABLE)
    assert table is not None
    by_path = {row["id"]: row["_file_path"] for row in desk.rows()}
    assert by_path == {n: f"s3://memory/{n}.json" for n in desk.source_ids()}
    assert len(table.schema.fields) == len({f.id for f in table.schema.fields})


def assert_ids_agree(desk: Desk) -> None:
    """Every data file names its columns' ids as the table does."""
    table = desk.store.get(TABLE)
    assert table is not None
    ids = {f.name: f.id for f in table.schema.fields}
    orders = [o for o in desk.engine.orders if any(o.name_prefix in f.path for f in table.data_files)]
    assert orders
    for order in orders:
        assert {f.name: f.id for f in order.schema.fields}.items() <= ids.items()


def test_what_the_sample_missed_of_a_new_table_is_in_its_first_commit(short: Desk) -> None:
    short.put("0.json", {"id": 0})
    short.put("1.json", {"id": 1, "late": "x"})
    short.put("2.json", {"id": 2, "nested": {"a": 1}})
    assert_whole(short)
    by_id = {row["id"]: row for row in short.rows()}
    assert by_id[1]["late"] == "x"
    assert by_id[2]["nested"] == {"a": 1}


def test_new_columns_of_just_our_columns_types_do_not_take_their_places(short: Desk) -> None:
    """The ids of a new table's system columns move when columns come in before them."""
    short.put("0.json", {"id": 0})
    short.put("1.json", {"id": 1, "y": "a", "z": "b", "w": "c", "v": "d"})
    assert_whole(short)
    by_id = {row["id"]: row for row in short.rows()}
    assert by_id[0].get("y") is None
    assert [by_id[1][name] for name in "yzwv"] == ["a", "b", "c", "d"]


def test_a_new_column_does_not_take_the_place_of_the_rescue_column(short: Desk) -> None:
    short.put("0.json", {"id": 0})
    short.put("1.json", {"id": 1, "y": "a"})
    assert short.load(values={"provenance": False}).status is RunStatus.SUCCESS
    assert_ids_agree(short)
    assert not short.orphans()


def test_a_wider_type_that_no_promotion_reaches_writes_a_new_table_again(short: Desk) -> None:
    short.put("0.json", {"id": 0, "x": 1})
    short.put("1.json", {"id": 1, "x": None})
    short.put("2.json", {"id": 2, "y": 1})
    assert_whole(short)


def test_files_that_go_on_drifting_after_the_last_round_fail_and_say_why(short: Desk) -> None:
    for number in range(MAX_ROUNDS + 3):
        short.put(f"{number}.json", {"id": number, f"column_{number}": 1})
    report = short.load()
    assert report.status is RunStatus.PARTIAL
    assert report.files_loaded == MAX_ROUNDS
    assert {e.category for e in report.errors} == {Category.SCHEMA_MISMATCH}
    assert not short.orphans()
    assert short.load(retry_failed=True).status is RunStatus.SUCCESS
    assert short.ids() == short.source_ids()


def test_drift_in_rounds_adds_to_a_table_that_is_there(short: Desk) -> None:
    short.put("0.json", {"id": 0})
    short.load()
    for number in range(1, MAX_ROUNDS):
        short.put(f"{number}.json", {"id": number, f"column_{number}": {"deep": [number]}})
    assert short.load().status is RunStatus.SUCCESS
    assert short.snapshots() == 2
    by_id = {row["id"]: row for row in short.rows()}
    for number in range(1, MAX_ROUNDS):
        assert by_id[number][f"column_{number}"] == {"deep": [number]}
    assert not short.orphans()


def test_without_provenance_only_the_rescue_column_is_added(short: Desk) -> None:
    short.put("0.json", {"id": 0})
    report = short.load(values={"provenance": False})
    assert report.status is RunStatus.SUCCESS
    table = short.store.get(TABLE)
    assert table is not None
    assert [f.name for f in table.schema.fields] == ["id", "_rescued_data"]
