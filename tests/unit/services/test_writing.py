"""A batch's files under a schema that grows: the engine looks at a sample, and what it missed shows when it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from app.domain.errors import CatalogRefusedError, Category, CommitUnknownError, WriteFailureError
from app.domain.files import SourceFile
from app.domain.ports import (
    CommitOrder,
    Committed,
    DataSink,
    Draft,
    Inference,
    Progress,
    Reading,
    WriteOrder,
    WriteResult,
)
from app.domain.runs import RunStatus
from app.domain.table import TableName
from app.domain.types import EMPTY, LONG, Field, Struct, join_structs
from app.services.writing import MAX_ROUNDS, fits
from tests.fakes.catalog import FakeCatalog, FakeDraft
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


class Wandering(FakeCatalog):
    """Gives every draft of a new table a place of its own, as catalogs do that know a place by a random name."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk.store)
        self.drafts = 0
        self.answers_lost = 0

    def draft_new(self, table: TableName, schema: Struct, properties: Mapping[str, str]) -> Draft:
        self.drafts += 1
        draft = super().draft_new(table, schema, properties)
        assert isinstance(draft, FakeDraft)
        draft.table = replace(draft.table, location=f"{draft.table.location}-{self.drafts}")
        if not self.answers_lost:
            return draft
        self.answers_lost -= 1
        return Unanswered(draft)


class Unanswered:
    """A draft of which the first commit comes to nothing, and nobody says so."""

    def __init__(self, inner: FakeDraft) -> None:
        self.inner, self.tried = inner, False
        self.schema, self.table_uuid, self.location = inner.schema, inner.table_uuid, inner.location
        self.sink, self.write_manifest, self.holding = inner.sink, inner.write_manifest, inner.holding

    def commit(self, order: CommitOrder) -> Committed:
        if self.tried:
            return self.inner.commit(order)
        self.tried = True
        raise CommitUnknownError


def assert_all_lies_at_the_table(desk: Desk) -> None:
    table = desk.store.get(TABLE)
    assert table is not None
    assert all(f.path.startswith(f"{table.location}/") for f in table.data_files)
    assert not desk.orphans()


def test_drafts_in_two_places_share_no_data_files(desk: Desk) -> None:
    catalog, schema = Wandering(desk), Struct((Field("id", LONG),))
    one, other = (catalog.draft_new(TABLE, schema, {}) for _ in range(2))
    assert fits(one, one)
    assert not fits(other, one)


def test_drift_takes_nothing_over_from_another_place(short: Desk) -> None:
    short.put("0.json", {"id": 0})
    short.put("1.json", {"id": 1, "late": "x"})
    catalog = Wandering(short)
    assert short.load(catalog=catalog).status is RunStatus.SUCCESS
    assert catalog.drafts > 1
    assert short.ids() == [0, 1]
    assert_all_lies_at_the_table(short)


def test_a_commit_that_makes_the_table_is_sent_again_as_it_was(desk: Desk) -> None:
    desk.put("0.json", {"id": 0})
    catalog = Wandering(desk)
    catalog.answers_lost = 1
    assert desk.load(catalog=catalog).status is RunStatus.SUCCESS
    assert desk.ids() == [0]
    assert_all_lies_at_the_table(desk)


class Sticky(FakeCatalog):
    """Its storage takes files and removes none; its commits are refused."""

    def draft(self, *args: object, **more: object) -> Draft:
        draft = super().draft(*args, **more)  # type: ignore[arg-type]
        assert isinstance(draft, FakeDraft)
        return StickyDraft(draft)


class StickyDraft:
    def __init__(self, inner: FakeDraft) -> None:
        self.inner = inner
        self.schema, self.table_uuid, self.location = inner.schema, inner.table_uuid, inner.location
        self.write_manifest, self.holding = inner.write_manifest, inner.holding

    def sink(self) -> StickySink:
        return StickySink(self.inner.sink())

    def commit(self, _: CommitOrder) -> Committed:
        raise CatalogRefusedError


class StickySink:
    def __init__(self, inner: DataSink) -> None:
        self.create, self.open = inner.create, inner.open

    def delete(self, path: str) -> None:
        raise WriteFailureError(f"{path} could not be removed.")


def test_what_cannot_be_removed_does_not_hide_what_became_of_the_batch(desk: Desk) -> None:
    desk.put("0.json", {"id": 0})
    desk.load()
    desk.put("1.json", {"id": 1})
    report = desk.load(catalog=Sticky(desk.store))
    assert isinstance(report.stopped_by, CatalogRefusedError)
    assert len(desk.orphans()) == 1
    assert desk.load().status is RunStatus.SUCCESS
    assert desk.ids() == [0, 1]
