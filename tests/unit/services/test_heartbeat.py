from __future__ import annotations

import threading

import pytest

from app.domain.errors import LeaseLostError, LedgerBusyError
from app.domain.runs import Lease, LeaseHolder, Owner
from app.services.heartbeat import Heartbeat

LEASE = Lease("i", "r", 1)


class Leases:
    """Answers as it is told, and tells how often it was asked."""

    def __init__(self) -> None:
        self.alive = True
        self.busy = False
        self.renewals = threading.Semaphore(0)

    def acquire(
        self, ingestion_id: str, run_id: str, owner: Owner, seconds: float, *, above_epoch: int = 0
    ) -> Lease | LeaseHolder:
        raise AssertionError((ingestion_id, run_id, owner, seconds, above_epoch))

    def renew(self, lease: Lease, seconds: float) -> bool:
        assert (lease, seconds) == (LEASE, 0.04)
        self.renewals.release()
        if self.busy:
            raise LedgerBusyError
        return self.alive

    def is_alive(self, lease: Lease) -> bool:
        assert lease == LEASE
        return self.alive

    def release(self, lease: Lease) -> None:
        raise AssertionError(lease)


def test_a_lease_is_renewed_until_the_work_ends() -> None:
    leases = Leases()
    with Heartbeat(leases, LEASE, 0.04).beating() as heartbeat:
        for _ in range(3):
            assert leases.renewals.acquire(timeout=30)
        heartbeat.assert_alive()
    while leases.renewals.acquire(blocking=False):
        pass
    assert not leases.renewals.acquire(timeout=0.1)


def test_a_lost_lease_stays_lost() -> None:
    leases = Leases()
    heartbeat = Heartbeat(leases, LEASE, 0.04)
    leases.alive = False
    with pytest.raises(LeaseLostError):
        heartbeat.assert_alive()
    leases.alive = True
    with pytest.raises(LeaseLostError):
        heartbeat.assert_alive()


def test_a_database_that_is_busy_does_not_stop_the_heart() -> None:
    leases = Leases()
    leases.busy = True
    with Heartbeat(leases, LEASE, 0.04).beating() as heartbeat:
        for _ in range(3):
            assert leases.renewals.acquire(timeout=30)
        leases.busy = False
        assert leases.renewals.acquire(timeout=30)
        heartbeat.assert_alive()


def test_the_heart_stops_when_the_work_fails() -> None:
    leases = Leases()
    with pytest.raises(ZeroDivisionError), Heartbeat(leases, LEASE, 0.04).beating():
        raise ZeroDivisionError
    assert not [t for t in threading.enumerate() if t.name == "lease-heartbeat"]


class Broken(Leases):
    """Fails as nothing here expects."""

    def renew(self, lease: Lease, seconds: float) -> bool:
        super().renew(lease, seconds)
        raise ZeroDivisionError


def test_a_heart_that_breaks_ends_the_work_before_its_next_commit() -> None:
    leases = Broken()
    with pytest.raises(ZeroDivisionError), Heartbeat(leases, LEASE, 0.04).beating() as heartbeat:
        asked_until_it_raises(heartbeat)


def asked_until_it_raises(heartbeat: Heartbeat) -> None:
    for _ in range(3000):
        heartbeat.assert_alive()
        threading.Event().wait(0.01)


def test_a_heart_that_breaks_behind_the_last_commit_is_no_success() -> None:
    leases = Broken()
    with pytest.raises(ZeroDivisionError), Heartbeat(leases, LEASE, 0.04).beating():
        leases.renewals.acquire(timeout=30)
