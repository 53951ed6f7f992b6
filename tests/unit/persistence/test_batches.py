from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import event, func, insert, select
from sqlalchemy.exc import IntegrityError

from app.domain.errors import Category, LeaseLostError
from app.domain.files import FileState
from app.domain.ledger import Closing
from app.domain.runs import Lease
from app.persistence.leases import this_process
from app.persistence.schema import batches, files, ingestions, runs
from tests.unit.persistence.desk import (
    CLEAN,
    DEFINITION,
    LONG_S,
    Desk,
    failed,
    file,
    loaded,
    open_desk,
    scribble,
    work,
)

A, B, C = file("a"), file("b"), file("c")
S = FileState


def test_a_claim_is_durable_with_its_files_and_definition(desk: Desk) -> None:
    lease = desk.take()
    batch = desk.claim(lease, B, A)
    assert batch.files == (A, B)
    assert (batch.batch.number, batch.batch.epoch) == (1, lease.epoch)
    again = open_desk(desk.url)
    assert again.ledger.open_batches(lease, again.table) == [batch]
    assert again.states() == {("a", "v1"): S.PROCESSING, ("b", "v1"): S.PROCESSING}
    assert again.rows()["a", "v1"].batch_id == "ing-00000001"
    again.ledger.dispose()


def test_numbers_rise_and_open_batches_come_oldest_first(desk: Desk) -> None:
    lease = desk.take()
    assert [desk.claim(lease, f).batch.number for f in (A, B, C)] == [1, 2, 3]
    assert [b.batch.number for b in desk.ledger.open_batches(lease, desk.table)] == [1, 2, 3]
    assert desk.ledger.committed_batches(desk.table) == {"ing": 3}


def test_a_claim_without_files_takes_no_number(desk: Desk) -> None:
    lease = desk.take()
    desk.claim(lease, A)
    assert desk.ledger.claim(lease, desk.table, DEFINITION, [A]) is None
    assert desk.claim(lease, A, B).files == (B,)
    assert desk.ledger.committed_batches(desk.table) == {"ing": 2}


def test_a_closed_batch_tells_each_of_its_files(desk: Desk) -> None:
    lease = desk.take()
    batch = desk.claim(lease, A, B, C)
    desk.close(lease, batch.batch, loaded=loaded(A), failed=(failed(B),), snapshot_id=77, sequence_number=5)
    rows = desk.rows()
    assert desk.states() == {("a", "v1"): S.SUCCESS, ("b", "v1"): S.FAILED, ("c", "v1"): S.DISCOVERED}
    assert rows["a", "v1"].rows == 3
    bad = rows["b", "v1"]
    assert (bad.category, bad.message, bad.line, bad.tries, bad.retryable) == ("connectivity", "why", 7, 1, True)
    assert desk.ledger.open_batches(lease, desk.table) == []
    record = desk.record()
    assert (record.uuid, record.snapshot_id, record.sequence_number) == ("u", 77, 5)


def test_closing_again_changes_nothing(desk: Desk) -> None:
    lease = desk.take()
    batch = desk.claim(lease, A)
    desk.close(lease, batch.batch, loaded=loaded(A), snapshot_id=1)
    desk.close(lease, batch.batch, failed=(failed(A),), snapshot_id=2)
    desk.close(lease, batch.batch, committed=False)
    assert desk.states() == {("a", "v1"): S.SUCCESS}
    assert desk.record().snapshot_id == 1


def test_a_batch_given_up_leaves_its_files_to_be_found_and_the_table_unknown(desk: Desk) -> None:
    lease = desk.take()
    desk.close(lease, desk.claim(lease, A, B).batch, committed=False, table_uuid=None)
    assert set(desk.states().values()) == {S.DISCOVERED}
    assert desk.record().uuid is None
    again = desk.claim(lease, A, B)
    assert again.files == (A, B)
    assert again.batch.number == 2


def test_a_lost_lease_claims_and_closes_nothing(desk: Desk) -> None:
    old = desk.take("r1")
    batch = desk.claim(old, A)
    desk.ledger.release(old)
    new = desk.take("r2")
    for attempt in (
        lambda: desk.claim(old, B),
        lambda: desk.close(old, batch.batch, loaded=loaded(A)),
        lambda: desk.ledger.open_batches(old, desk.table),
    ):
        with pytest.raises(LeaseLostError):
            attempt()
    assert desk.states() == {("a", "v1"): S.PROCESSING}
    (open_batch,) = desk.ledger.open_batches(new, desk.table)
    assert open_batch.batch.epoch == new.epoch > batch.batch.epoch
    assert open_batch.batch.batch_id == batch.batch.batch_id
    assert open_batch.definition == DEFINITION


def test_failed_files_count_their_tries_and_wait_longer_each_time(desk: Desk) -> None:
    lease = desk.take()
    for tries, delay_s in ((1, 0), (2, 60), (3, 240)):
        before = datetime.now(UTC)
        desk.close(lease, desk.claim(lease, A).batch, failed=(failed(A),), committed=False)
        row = desk.rows()["a", "v1"]
        assert row.tries == tries
        assert row.next_try_at is not None
        given_back_at = row.next_try_at - timedelta(seconds=delay_s)
        # To the rounding of a clock.
        assert before - timedelta(milliseconds=1) <= given_back_at <= datetime.now(UTC) + timedelta(milliseconds=1)


def test_a_file_may_be_tried_on_demand_any_number_of_times(desk: Desk) -> None:
    lease, a = desk.take(), file("a")
    for _ in range(60):
        desk.close(lease, desk.claim(lease, a).batch, failed=(failed(a),))
    row = desk.rows()[a.key.removeprefix("s3://b/"), a.version]
    assert row.tries == 60
    assert row.next_try_at is not None
    assert row.next_try_at - datetime.now(UTC) <= timedelta(days=1)


def test_tries_are_kept_when_a_batch_is_given_up_and_what_failed_is_not_shown_any_more(desk: Desk) -> None:
    lease = desk.take()
    desk.close(lease, desk.claim(lease, A).batch, failed=(failed(A),), committed=False)
    desk.close(lease, desk.claim(lease, A).batch, committed=False)
    row = desk.rows()["a", "v1"]
    assert (row.state, row.tries, row.category, row.message, row.line) == (S.DISCOVERED, 1, None, None, None)
    desk.close(lease, desk.claim(lease, A).batch, loaded=loaded(A))
    assert desk.rows()["a", "v1"].category is None


def test_failures_of_one_batch_keep_their_own_reasons_and_tries(desk: Desk) -> None:
    lease = desk.take()
    desk.close(lease, desk.claim(lease, A).batch, failed=(failed(A),), committed=False)
    failures = (failed(A, message="again"), failed(B, Category.DATA_MALFORMED, "broken"))
    desk.close(lease, desk.claim(lease, A, B, C).batch, failed=failures, loaded=loaded(C))
    rows = desk.rows()
    assert [(r.tries, r.message, r.category) for r in (rows["a", "v1"], rows["b", "v1"], rows["c", "v1"])] == [
        (2, "again", "connectivity"),
        (1, "broken", "data_malformed"),
        (0, None, None),
    ]


def test_closing_finds_each_file_by_its_key(desk: Desk) -> None:
    """Not by going through the batch for each of its files: ten thousand of them would take minutes."""
    lease = desk.take()
    found = [file(f"{n:04}") for n in range(50)]
    batch = desk.claim(lease, *found)
    plans: list[str] = []
    on_sqlite = desk.ledger._engine.dialect.name == "sqlite"

    def explain(connection: Any, _: object, statement: str, parameters: Any, __: object, many: bool) -> None:  # noqa: FBT001
        if many and statement.strip().lower().startswith("update files"):
            explaining = "explain query plan" if on_sqlite else "explain"
            rows = connection.connection.driver_connection.execute(f"{explaining} {statement}", parameters[0])
            plans.append(" ".join(str(row[-1]) for row in rows))

    event.listen(desk.ledger._engine, "before_cursor_execute", explain)
    desk.close(lease, batch.batch, loaded=loaded(*found[:25]), failed=tuple(failed(f) for f in found[25:]))
    event.remove(desk.ledger._engine, "before_cursor_execute", explain)
    assert len(plans) == 2
    on_each = (
        ["PRIMARY KEY (table_id=? AND generation=? AND key=? AND version=?)"]
        if on_sqlite
        else ["Index Scan using pk_files", "(table_id = ", "(generation = ", "(key = ", "(version = "]
    )
    for plan in plans:
        assert [words for words in on_each if words not in plan.partition("Filter")[0]] == [], plan


def test_a_category_that_no_retry_mends_is_not_retryable(desk: Desk) -> None:
    lease = desk.take()
    desk.close(lease, desk.claim(lease, A).batch, failed=(failed(A, Category.DATA_MALFORMED),), committed=False)
    assert not desk.rows()["a", "v1"].retryable


def test_messages_that_no_encoding_holds_are_kept_readable(desk: Desk) -> None:
    lease = desk.take()
    failure = failed(A, message="é \ud800 \0")
    desk.close(lease, desk.claim(lease, A).batch, failed=(failure,), committed=False)
    assert desk.rows()["a", "v1"].message == "é \\ud800 \\x00"


def other_ingestion(desk: Desk) -> Lease:
    with desk.ledger._write() as connection:
        connection.execute(
            insert(ingestions).values(
                id="other", table_id=desk.table.id, kind="service", next_batch=1, created_at=datetime.now(UTC)
            )
        )
    lease = desk.ledger.acquire("other", "r9", this_process(), LONG_S)
    assert isinstance(lease, Lease)
    return lease


def test_two_ingestions_of_a_table_never_claim_a_file_twice(desk: Desk) -> None:
    mine, theirs = desk.take(), other_ingestion(desk)
    first = desk.claim(mine, A)
    assert desk.claim(theirs, A, B).files == (B,)
    desk.close(mine, first.batch, loaded=loaded(A))
    assert desk.ledger.claim(theirs, desk.table, DEFINITION, [A]) is None
    assert [b.batch.ingestion_id for b in desk.ledger.open_batches(theirs, desk.table)] == ["other"]
    assert desk.ledger.open_batches(mine, desk.table) == []


def test_a_file_is_never_claimed_beside_another_version_of_it(desk: Desk) -> None:
    """The listing showed it before the other ingestion took it."""
    mine, theirs = desk.take(), other_ingestion(desk)
    batch = desk.claim(mine, A)
    newer = file("a", "v2")
    assert desk.ledger.claim(theirs, desk.table, DEFINITION, [newer]) is None
    desk.close(mine, batch.batch, loaded=loaded(A))
    assert desk.claim(theirs, newer, B).files == (B,)
    assert desk.states()["a", "v2"] is S.DISCOVERED
    assert desk.rows()["a", "v2"].batch_id is None


def test_a_new_version_of_a_failed_file_is_claimed(desk: Desk) -> None:
    lease = desk.take()
    desk.close(lease, desk.claim(lease, A).batch, failed=(failed(A),), committed=False)
    assert desk.claim(lease, file("a", "v2")).files == (file("a", "v2"),)


def test_a_version_that_failed_is_superseded_by_the_one_that_is_taken(desk: Desk) -> None:
    lease = desk.take()
    desk.close(lease, desk.claim(lease, A, B).batch, failed=(failed(A), failed(B)), committed=False)
    desk.claim(lease, file("a", "v2"))
    assert desk.states() == {("a", "v1"): S.SUPERSEDED, ("a", "v2"): S.PROCESSING, ("b", "v1"): S.FAILED}
    assert not desk.rows()["a", "v1"].retryable


def test_table_key_version_and_generation_are_unique(desk: Desk) -> None:
    lease = desk.take()
    desk.claim(lease, A)
    values = {"table_id": desk.table.id, "generation": 1, "key": A.key, "version": A.version, "state": "success",
              "size_bytes": 1, "modified_at": A.modified_at, "retryable": False, "tries": 0,
              "updated_at": A.modified_at}  # fmt: skip
    engine = desk.ledger._engine
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(insert(files).values(values))
    for other in ({"generation": 2}, {"version": "v2"}, {"key": "s3://b/other"}):
        with engine.begin() as connection:
            connection.execute(insert(files).values(values | other))


def test_processes_that_work_in_turns_load_every_file_once(desk: Desk) -> None:
    workers, turns = 4, 4
    processes = [CLEAN.Process(target=work, args=(desk.url, n, turns)) for n in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0] * workers
    states = Counter(desk.states().values())
    assert states == {S.SUCCESS: workers * turns * 5 + 1}
    with desk.ledger._read() as connection:
        numbers = connection.execute(select(batches.c.number, batches.c.epoch).order_by(batches.c.number)).all()
        assert connection.execute(select(func.count()).select_from(runs)).scalar_one() == workers * turns
    assert [n for n, _ in numbers] == list(range(1, workers * turns + 1))
    assert sorted(e for _, e in numbers) == [e for _, e in numbers]


def test_twenty_processes_write_at_once(desk: Desk) -> None:
    processes = [CLEAN.Process(target=scribble, args=(desk.url, n)) for n in range(20)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(150)
    assert [p.exitcode for p in processes] == [0] * 20
    assert len(desk.states()) == 200


def test_a_batch_that_was_given_up_may_not_be_in_the_table(desk: Desk) -> None:
    lease = desk.take()
    committed, given_up = desk.claim(lease, A), desk.claim(lease, B)
    closing = Closing(committed.batch, committed=True, snapshot_id=1, sequence_number=1, table_uuid="u")
    desk.ledger.close(lease, desk.record(), closing)
    desk.ledger.close(lease, desk.record(), Closing(given_up.batch, committed=False))
    assert desk.ledger.committed_batches(desk.table) == {"ing": committed.batch.number}


def test_a_batch_that_was_open_when_its_generation_ended_may_be_in_the_table(desk: Desk) -> None:
    lease = desk.take()
    batch = desk.claim(lease, A)
    desk.ledger.release(lease)
    desk.ledger.clear(desk.record())
    assert desk.ledger.committed_batches(desk.table) == {"ing": batch.batch.number}


def test_names_that_mean_something_to_a_database_are_claimed_and_closed_as_they_are(desk: Desk) -> None:
    lease = desk.take()
    names = ["a\0b", "a\1b", "a\1\2b", "100%s", "what?", "quo'te", ":name", "\U0001f600"]
    found = sorted((file(name, f"v{name}") for name in names), key=lambda f: f.order)
    batch = desk.claim(lease, *reversed(found))
    assert list(batch.files) == found
    (open_batch,) = desk.ledger.open_batches(lease, desk.table)
    assert list(open_batch.files) == found
    desk.close(lease, batch.batch, loaded=loaded(*found))
    assert desk.states() == {(name, f"v{name}"): S.SUCCESS for name in names}


def test_a_file_that_is_named_twice_is_claimed_once(desk: Desk) -> None:
    lease = desk.take()
    assert desk.claim(lease, B, A, B).files == (A, B)


@pytest.mark.parametrize("known", ["a", "b", "c", "d"])
def test_a_claim_finds_what_is_known_wherever_it_lies_among_its_files(desk: Desk, known: str) -> None:
    lease = desk.take()
    desk.close(lease, desk.claim(lease, file(known, "v0")).batch, loaded=loaded(file(known, "v0")))
    wanted = [file(name) for name in "abd"]
    expected = tuple(one for one in wanted if one.key != file(known).key)
    assert desk.claim(lease, *wanted).files == expected
    assert {at for at, state in desk.states().items() if state is S.PROCESSING} == {
        (one.key.removeprefix("s3://b/"), "v1") for one in expected
    }


def test_a_claim_gives_what_the_ledger_then_holds(desk: Desk) -> None:
    """Also where it was not read back: to the microsecond, and whatever zone the time came in."""
    lease = desk.take()
    when = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    batch = desk.claim(lease, A._replace(modified_at=when), B)
    assert desk.ledger.open_batches(lease, desk.table) == [batch]


def test_claiming_never_goes_through_the_table(sqlite_url: str) -> None:
    """A batch of a long history must not cost what the history does."""
    desk = open_desk(sqlite_url)
    lease = desk.take()
    desk.close(lease, desk.claim(lease, A, B).batch, loaded=loaded(A), failed=(failed(B),))
    plans: list[str] = []

    def explain(connection: Any, _: object, statement: str, parameters: Any, __: object, many: bool) -> None:  # noqa: FBT001
        if "files" in statement:
            one = parameters[0] if many else parameters
            rows = connection.connection.driver_connection.execute(f"explain query plan {statement}", one)
            plans.extend(str(row[-1]) for row in rows)

    event.listen(desk.ledger._engine, "before_cursor_execute", explain)
    assert desk.claim(lease, file("b", "v2"), C).files == (file("b", "v2"), C)
    event.remove(desk.ledger._engine, "before_cursor_execute", explain)
    assert desk.states()["b", "v1"] is S.SUPERSEDED
    assert [plan for plan in plans if plan.startswith("SEARCH files")]
    assert [plan for plan in plans if plan.startswith("SCAN")] == []
    # By the generation alone is as good as all of it.
    assert [plan for plan in plans if plan.endswith("(table_id=? AND generation=?)")] == []
    desk.ledger.dispose()
