from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.definition import OnFileChange
from app.domain.errors import RunInProgressError
from app.domain.files import FileState, KnownVersion, SourceFile
from app.domain.runs import Owner
from app.persistence.database import open_engine, parse_url
from app.persistence.leases import this_process
from app.persistence.ledger import SqlLedger
from tests.unit.persistence.desk import DEFINITION, ELSEWHERE, Desk, failed, file, loaded

NAMES = [
    "a/x",
    "a-b/x",
    "a.json",
    "a!",
    "a",
    "é",
    "e\u0301",
    "\uffee",
    "\U0001f600",
    "\\xff",
    "A",
    "~",
    "",
    "ß",
    "a\0b",
    "a\0",
    "a\1",
    "a\1\0",
    "a\2",
]
S = FileState


@pytest.mark.parametrize("page_rows", [1, 2, 3, 1000])
def test_rows_come_in_the_order_of_their_keys_bytes_across_pages(desk: Desk, page_rows: int) -> None:
    found = [file(name, version) for name in NAMES for version in ("v1", "V1", "v2")]
    desk.ledger.mark(desk.table, "r", [(f, S.SKIPPED) for f in found])
    ledger = SqlLedger(open_engine(parse_url(desk.url)), page_rows=page_rows)
    rows = list(ledger.files_after(desk.table, ""))
    assert [(r.key.encode(), r.version) for r in rows] == sorted((f.order, f.version) for f in found)
    border = file("é").key
    behind = [r.key for r in ledger.files_after(desk.table, border)]
    assert behind == [r.key for r in rows if r.key.encode() >= border.encode()]
    versions = list(ledger.versions_after(desk.table, ""))
    assert [(v.key, v.version, v.state) for v in versions] == [(r.key, r.version, r.state) for r in rows]
    assert [v.key for v in ledger.versions_after(desk.table, border)] == behind
    ledger.dispose()


def test_a_version_says_what_decides_about_it(desk: Desk) -> None:
    lease = desk.take()
    a, b = file("a"), file("b")
    desk.close(lease, desk.claim(lease, a, b).batch, loaded=loaded(a), failed=(failed(b),))
    desk.close(lease, desk.claim(lease, b).batch, failed=(failed(b),))
    known, tried = desk.ledger.versions_after(desk.table, "")
    (row,) = desk.ledger.list_files(desk.table, failed=True, limit=10, after=None)
    assert known == KnownVersion(a.key, a.version, S.SUCCESS)
    assert row.next_try_at is not None
    assert tried == KnownVersion(b.key, b.version, S.FAILED, row.retryable, 2, row.next_try_at)


def test_pages_of_a_list_never_part_the_versions_of_a_key(desk: Desk) -> None:
    found = [file(name, version) for name in ("a", "b", "c") for version in ("v1", "v2", "v3")]
    desk.ledger.mark(desk.table, "r", [(f, S.SKIPPED) for f in found])
    seen: list[tuple[str, str]] = []
    after: str | None = None
    while page := desk.ledger.list_files(desk.table, failed=False, limit=2, after=after):
        seen += [(r.key, r.version) for r in page]
        after = page[-1].key
    assert seen == [(f.key, f.version) for f in found]


def test_only_failed_files_are_listed_where_that_is_asked(desk: Desk) -> None:
    lease = desk.take()
    a, b = file("a"), file("b")
    desk.close(lease, desk.claim(lease, a, b).batch, loaded=loaded(a), failed=(failed(b),))
    listed = desk.ledger.list_files(desk.table, failed=True, limit=10, after=None)
    assert [(r.key, r.state, r.category) for r in listed] == [(b.key, S.FAILED, "connectivity")]
    assert desk.ledger.list_files(desk.table, failed=True, limit=10, after=b.key) == []


def test_marking_says_what_is_not_to_be_loaded_and_never_unsays_what_was(desk: Desk) -> None:
    lease = desk.take()
    done, busy, bad, back = (file(n) for n in ("done", "busy", "bad", "back"))
    desk.close(lease, desk.claim(lease, done, bad, back).batch, loaded=loaded(done), failed=(failed(bad),))
    desk.claim(lease, busy)
    marks: list[tuple[SourceFile, FileState]] = [(f, S.CHANGED) for f in (done, busy, bad, back, file("new"))]
    desk.ledger.mark(desk.table, "r2", [*marks, (file("empty"), S.SKIPPED)])
    assert {name: state for (name, _), state in desk.states().items()} == {
        "done": S.SUCCESS,
        "busy": S.PROCESSING,
        "bad": S.CHANGED,
        "back": S.CHANGED,
        "new": S.CHANGED,
        "empty": S.SKIPPED,
    }
    desk.ledger.mark(desk.table, "r3", [])


def test_clearing_begins_a_generation_and_forgets_which_table_it_was(desk: Desk) -> None:
    lease = desk.take()
    a, b = file("a"), file("b")
    desk.close(lease, desk.claim(lease, a).batch, loaded=loaded(a))
    left_open = desk.claim(lease, b)
    desk.ledger.release(lease)
    assert desk.ledger.clear(desk.table) == (1, 2)
    record = desk.record()
    assert (record.generation, record.uuid, record.snapshot_id, record.sequence_number) == (2, None, None, 0)
    assert desk.rows() == {}
    new = desk.take("r2")
    assert desk.ledger.open_batches(new, record) == []
    again = desk.claim(new, a, b)
    assert again.files == (a, b)
    assert again.batch.number == left_open.batch.number + 1
    assert again.generation == 2


def test_clearing_with_an_old_record_still_begins_a_new_generation(desk: Desk) -> None:
    assert desk.ledger.clear(desk.table) == (0, 2)
    assert desk.ledger.clear(desk.table) == (0, 3)


@pytest.mark.parametrize("owner", [this_process(), ELSEWHERE])
def test_nothing_is_cleared_under_a_run_at_work(desk: Desk, owner: Owner) -> None:
    lease = desk.take("r1", owner)
    with pytest.raises(RunInProgressError, match="r1") as caught:
        desk.ledger.clear(desk.table)
    assert caught.value.run_id == "r1"
    assert desk.record().generation == 1
    desk.ledger.release(lease)
    assert desk.ledger.clear(desk.table) == (0, 2)


def test_a_dead_run_does_not_stand_in_the_way_of_clearing(desk: Desk) -> None:
    me = this_process()
    desk.take("r1", Owner(me.host, me.pid, me.process_started_at - 100))
    assert desk.ledger.clear(desk.table) == (0, 2)


def test_a_run_that_slept_through_a_clearing_cannot_go_on(desk: Desk) -> None:
    lease = desk.take("r1", ELSEWHERE, seconds=0.0)
    desk.ledger.clear(desk.table)
    assert not desk.ledger.renew(lease, 60)
    assert not desk.ledger.is_alive(lease)
    assert desk.take("r2").epoch > lease.epoch


def test_tables_have_ledgers_of_their_own(desk: Desk) -> None:
    other = desk.ledger.ensure_table("local.db.other")
    assert other.id != desk.table.id
    assert desk.ledger.ensure_table("local.db.other") == other == desk.ledger.table("local.db.other")
    assert desk.ledger.table("local.db.none") is None
    assert desk.ledger.load_ingestion(other) is None
    assert desk.ledger.ensure_load_ingestion(other, "i2") == "i2"
    assert desk.ledger.ensure_load_ingestion(other, "i3") == "i2"
    desk.ledger.mark(other, "r", [(file("a"), S.SKIPPED)])
    assert desk.rows() == {}
    assert desk.ledger.committed_batches(other) == {"i2": 0}


@pytest.mark.parametrize("page_rows", [1, 2, 3, 5_000])
def test_pages_tell_all_of_every_key_and_never_part_its_versions(desk: Desk, page_rows: int) -> None:
    lease = desk.take()
    a1, a2, b1, b2, c1, d1, e1 = (file(n[0], n[1]) for n in ("a1", "a2", "b1", "b2", "c1", "d1", "\U0001f6001"))
    desk.close(lease, desk.claim(lease, a1, d1, c1).batch, loaded=loaded(a1, d1), failed=(failed(c1),))
    desk.close(lease, desk.claim(lease, b1).batch, failed=(failed(b1),))
    desk.close(lease, desk.claim(lease, b2, e1).batch, loaded=loaded(b2, e1))
    desk.ledger.mark(desk.table, "r", [(a2, S.CHANGED)])
    ledger = SqlLedger(open_engine(parse_url(desk.url)), page_rows=page_rows)
    pages = list(ledger.pages_after(desk.table, ""))
    rows = list(ledger.versions_after(desk.table, ""))
    told = [known for page in pages for key in sorted({*page.loaded, *page.others}) for known in page.known(key)]
    assert told == rows
    assert [page.last for page in pages] == sorted(page.last for page in pages)
    assert pages[-1].last == e1.key
    assert {key: version for page in pages for key, version in page.loaded.items()} == {
        a1.key: "1",
        b2.key: "2",
        d1.key: "1",
        e1.key: "1",
    }
    assert {key for page in pages for key in page.others} == {a1.key, b1.key, c1.key}
    behind = [known for page in ledger.pages_after(desk.table, b1.key) for known in page.known(c1.key)]
    assert [known.state for known in behind] == [S.FAILED]
    assert list(ledger.pages_after(desk.table, "s3://c")) == []
    ledger.dispose()


def test_of_a_key_with_several_loaded_versions_a_page_knows_all(desk: Desk) -> None:
    lease = desk.take()
    appending = replace(DEFINITION, on_file_change=OnFileChange.APPEND)
    for version in ("1", "2"):
        one = file("a", version)
        batch = desk.ledger.claim(lease, desk.record(), appending, [one])
        assert batch is not None
        desk.close(lease, batch.batch, loaded=loaded(one))
    (page,) = desk.ledger.pages_after(desk.table, "")
    assert [(known.version, known.state) for known in page.known(file("a").key)] == [("1", S.SUCCESS), ("2", S.SUCCESS)]
    assert page.loaded[file("a").key] in {"1", "2"}
