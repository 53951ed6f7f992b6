"""On PostgreSQL transactions run beside each other; each of these pairs would break a promise if they did so here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import pytest
from sqlalchemy import select

from app.domain.errors import LeaseLostError, RunInProgressError
from app.domain.files import FileState
from app.domain.ledger import OpenBatch
from app.domain.runs import Lease, LeaseHolder, TableRecord
from app.persistence.ledger import SqlLedger, open_ledger
from app.persistence.schema import leases
from tests.support.postgres import Postgres
from tests.unit.persistence.desk import DEFINITION, ELSEWHERE, LONG_S, TABLE, Desk, file, loaded, open_desk
from tests.unit.persistence.overlapping import held_at_commit, overlapped
from tests.unit.persistence.test_batches import other_ingestion

S = FileState
Overlap: TypeAlias = Callable[[Callable[[SqlLedger], object], Callable[[SqlLedger], object]], tuple[object, object]]


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def overlap(postgres: Postgres, url: str) -> Overlap:
    return lambda first, second: overlapped(postgres, url, first, second)


def acquire(desk: Desk, run_id: str, seconds: float = LONG_S) -> Callable[[SqlLedger], object]:
    return lambda ledger: ledger.acquire(desk.ingestion, run_id, ELSEWHERE, seconds)


def test_of_two_that_take_a_lease_first_one_gets_it(desk: Desk, overlap: Overlap) -> None:
    got, refused = overlap(acquire(desk, "r1"), acquire(desk, "r2"))
    assert isinstance(got, Lease)
    assert (got.ingestion_id, got.run_id) == (desk.ingestion, "r1")
    assert isinstance(refused, LeaseHolder)
    assert refused.run_id == "r1"


def test_of_two_that_take_over_a_lease_one_gets_it(desk: Desk, overlap: Overlap) -> None:
    old = desk.take("r0", ELSEWHERE, seconds=0.0)
    got, refused = overlap(acquire(desk, "r1"), acquire(desk, "r2"))
    assert isinstance(got, Lease)
    assert (got.ingestion_id, got.run_id) == (desk.ingestion, "r1")
    assert got.epoch > old.epoch
    assert isinstance(refused, LeaseHolder)


def test_a_lease_that_was_waited_for_holds_for_its_whole_time(desk: Desk, overlap: Overlap) -> None:
    _, late = overlap(acquire(desk, "r1", seconds=0.0), acquire(desk, "r2"))
    assert isinstance(late, Lease)
    with desk.ledger._read() as connection:
        left_s = connection.execute(select(leases.c.expires_at - desk.ledger._now_s())).scalar_one()
    assert LONG_S - 30 < left_s <= LONG_S


def test_a_lease_is_not_taken_from_under_a_claim(desk: Desk, overlap: Overlap) -> None:
    """Its time is up while the claim is on its way: who takes it over finds the batch."""
    lease = desk.take("r1", ELSEWHERE)

    def take_over(ledger: SqlLedger) -> Lease:
        assert ledger.renew(lease, 0.0)
        return _insist(ledger, desk.ingestion)

    claimed, taken = overlap(
        lambda ledger: ledger.claim(lease, desk.table, DEFINITION, [file("a")]),
        take_over,
    )
    assert isinstance(claimed, OpenBatch)
    assert isinstance(taken, Lease)
    assert [b.batch.number for b in desk.ledger.open_batches(taken, desk.table)] == [claimed.batch.number]


def _insist(ledger: SqlLedger, ingestion_id: str) -> Lease:
    while not isinstance(got := ledger.acquire(ingestion_id, "r2", ELSEWHERE, LONG_S), Lease):
        pass
    return got


def test_who_lost_the_lease_meanwhile_claims_nothing(desk: Desk, overlap: Overlap) -> None:
    old = desk.take("r1", ELSEWHERE, seconds=0.0)
    desk.ledger.renew(old, LONG_S)

    def take_again(ledger: SqlLedger) -> object:
        return ledger.acquire(desk.ingestion, "r1", ELSEWHERE, LONG_S)

    with pytest.raises(LeaseLostError):
        overlap(take_again, lambda ledger: ledger.claim(old, desk.table, DEFINITION, [file("a")]))
    assert desk.states() == {}


def test_a_lease_that_another_takes_meanwhile_is_not_renewed(desk: Desk, overlap: Overlap) -> None:
    old = desk.take("r1", ELSEWHERE, seconds=0.0)
    _, renewed = overlap(acquire(desk, "r2"), lambda ledger: ledger.renew(old, LONG_S))
    assert renewed is False


def test_a_lease_that_is_renewed_meanwhile_is_not_taken(desk: Desk, overlap: Overlap) -> None:
    lease = desk.take("r1", ELSEWHERE, seconds=0.0)
    renewed, refused = overlap(lambda ledger: ledger.renew(lease, LONG_S), acquire(desk, "r2"))
    assert renewed is True
    assert isinstance(refused, LeaseHolder)


def test_a_lease_is_renewed_while_a_claim_is_on_its_way(desk: Desk, url: str) -> None:
    """A claim of many files takes its time; the heartbeat does not wait for it."""
    lease = desk.take("r1", ELSEWHERE)
    one = open_ledger(url)
    reached, may_go = held_at_commit(one)
    with ThreadPoolExecutor() as threads:
        claimed = threads.submit(one.claim, lease, desk.table, DEFINITION, [file("a")])
        assert reached.wait(30)
        renewed = threads.submit(desk.ledger.renew, lease, LONG_S)
        try:
            assert renewed.result(50)
        finally:
            may_go.set()
        assert claimed.result(30) is not None
    one.dispose()


def test_two_ingestions_never_claim_one_file_at_once(desk: Desk, overlap: Overlap) -> None:
    mine, theirs = desk.take(), other_ingestion(desk)
    first, second = overlap(
        lambda ledger: ledger.claim(mine, desk.table, DEFINITION, [file("a"), file("b")]),
        lambda ledger: ledger.claim(theirs, desk.table, DEFINITION, [file("b"), file("c")]),
    )
    assert isinstance(first, OpenBatch)
    assert isinstance(second, OpenBatch)
    assert (first.files, second.files) == ((file("a"), file("b")), (file("c"),))


def test_two_ingestions_never_claim_two_versions_of_one_file_at_once(desk: Desk, overlap: Overlap) -> None:
    mine, theirs = desk.take(), other_ingestion(desk)
    first, second = overlap(
        lambda ledger: ledger.claim(mine, desk.table, DEFINITION, [file("a", "v1")]),
        lambda ledger: ledger.claim(theirs, desk.table, DEFINITION, [file("a", "v2")]),
    )
    assert isinstance(first, OpenBatch)
    assert second is None
    assert desk.states() == {("a", "v1"): S.PROCESSING, ("a", "v2"): S.DISCOVERED}


def test_marking_waits_for_a_claim_and_leaves_it_alone(desk: Desk, overlap: Overlap) -> None:
    lease = desk.take()
    overlap(
        lambda ledger: ledger.claim(lease, desk.table, DEFINITION, [file("a")]),
        lambda ledger: ledger.mark(desk.table, "r2", [(file("a"), S.CHANGED)]),
    )
    assert desk.states() == {("a", "v1"): S.PROCESSING}


def test_nothing_is_cleared_under_a_run_that_begins(desk: Desk, overlap: Overlap) -> None:
    with pytest.raises(RunInProgressError):
        overlap(acquire(desk, "r1"), lambda ledger: ledger.clear(desk.table))
    assert desk.record().generation == 1


def test_nothing_is_cleared_under_a_run_that_renews_its_lease(desk: Desk, overlap: Overlap) -> None:
    lease = desk.take("r1", ELSEWHERE, seconds=0.0)
    with pytest.raises(RunInProgressError):
        overlap(lambda ledger: ledger.renew(lease, LONG_S), lambda ledger: ledger.clear(desk.table))


def test_a_run_that_begins_under_a_clearing_works_on_the_new_generation(desk: Desk, overlap: Overlap) -> None:
    _, lease = overlap(lambda ledger: ledger.clear(desk.table), acquire(desk, "r1"))
    assert isinstance(lease, Lease)
    assert desk.claim(lease, file("a")).generation == 2


def test_a_batch_is_not_closed_into_a_generation_that_ends(desk: Desk, overlap: Overlap) -> None:
    lease = desk.take("r1", ELSEWHERE, seconds=0.0)
    desk.ledger.renew(lease, LONG_S)
    batch = desk.claim(lease, file("a"))
    desk.ledger.renew(lease, 0.0)

    def clear(ledger: SqlLedger) -> object:
        return ledger.clear(desk.table)

    with pytest.raises(LeaseLostError):
        overlap(clear, lambda ledger: _close(ledger, desk, lease, batch))
    assert desk.rows() == {}


def _close(ledger: SqlLedger, desk: Desk, lease: Lease, batch: OpenBatch) -> None:
    Desk(desk.url, ledger, desk.table, desk.ingestion).close(lease, batch.batch, loaded=loaded(*batch.files))


def test_two_clearings_begin_two_generations(desk: Desk, overlap: Overlap) -> None:
    assert overlap(lambda ledger: ledger.clear(desk.table), lambda ledger: ledger.clear(desk.table)) == ((0, 2), (0, 3))


def test_two_that_make_one_table_make_one(url: str, overlap: Overlap) -> None:
    first, second = overlap(lambda ledger: ledger.ensure_table("t"), lambda ledger: ledger.ensure_table("t"))
    assert first == second
    desk = open_desk(url)
    assert desk.table != first
    desk.ledger.dispose()


def test_two_that_make_one_ingestion_make_one(desk: Desk, overlap: Overlap) -> None:
    other = desk.ledger.ensure_table("another")
    assert isinstance(other, TableRecord)
    assert other.name != TABLE
    made = overlap(
        lambda ledger: ledger.ensure_load_ingestion(other, "i1"),
        lambda ledger: ledger.ensure_load_ingestion(other, "i2"),
    )
    assert made == ("i1", "i1")
