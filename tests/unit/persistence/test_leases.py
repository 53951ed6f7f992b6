from __future__ import annotations

import os
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from app.domain.errors import LeaseLostError
from app.domain.runs import Lease, LeaseHolder, Owner, RunReport, RunStatus
from app.persistence.leases import is_dead, this_process
from app.persistence.ledger import open_ledger
from app.persistence.schema import runs
from tests.unit.persistence.desk import CLEAN, ELSEWHERE, LONG_S, Desk, file, hold_lease, open_desk, until

LIVE = this_process()


def test_one_run_holds_an_ingestion(desk: Desk) -> None:
    desk.take("r1")
    other = open_desk(desk.url)
    holder = other.ledger.acquire(desk.ingestion, "r2", LIVE, LONG_S)
    assert isinstance(holder, LeaseHolder)
    assert (holder.run_id, holder.owner) == ("r1", LIVE)
    assert 0 < holder.expires_in_s <= LONG_S + 1
    assert isinstance(other.ledger.acquire("another ingestion", "r2", LIVE, LONG_S), Lease)
    other.ledger.dispose()


def test_the_epoch_rises_with_every_holder(desk: Desk) -> None:
    epochs = []
    for run in ("r1", "r2", "r3"):
        lease = desk.take(run)
        epochs.append(lease.epoch)
        desk.ledger.release(lease)
    assert epochs == sorted(set(epochs))


def test_the_same_run_takes_its_lease_again_and_shuts_its_past_out(desk: Desk) -> None:
    first, second = desk.take("r1"), desk.take("r1")
    assert second.epoch > first.epoch
    assert not desk.ledger.is_alive(first)
    assert not desk.ledger.renew(first, LONG_S)
    assert desk.ledger.is_alive(second)


def test_a_lease_runs_out_by_itself(desk: Desk) -> None:
    lease = desk.take("r1", ELSEWHERE)
    assert desk.ledger.is_alive(lease)
    assert desk.ledger.renew(lease, 0.3)
    until(lambda: isinstance(desk.ledger.acquire(desk.ingestion, "r2", LIVE, LONG_S), Lease))
    assert not desk.ledger.is_alive(lease)
    assert not desk.ledger.renew(lease, LONG_S)
    with pytest.raises(LeaseLostError):
        desk.claim(lease, file("a"))


def test_a_lease_that_is_renewed_goes_on(desk: Desk) -> None:
    lease = desk.take("r1", ELSEWHERE, seconds=0.2)
    assert desk.ledger.renew(lease, LONG_S)
    until(lambda: desk.ledger.is_alive(lease), 0.1)
    assert isinstance(desk.ledger.acquire(desk.ingestion, "r2", LIVE, LONG_S), LeaseHolder)


def test_a_lease_that_ran_out_is_not_alive_but_may_be_renewed_while_nobody_took_it(desk: Desk) -> None:
    lease = desk.take("r1", seconds=0.0)
    assert not desk.ledger.is_alive(lease)
    assert desk.ledger.renew(lease, LONG_S)
    assert desk.ledger.is_alive(lease)


def test_giving_back_leaves_another_holder_alone(desk: Desk) -> None:
    old = desk.take("r1")
    desk.ledger.release(old)
    new = desk.take("r2")
    desk.ledger.release(old)
    assert desk.ledger.is_alive(new)
    assert not desk.ledger.is_alive(old)


def test_a_killed_process_is_taken_over_at_once_and_its_run_is_settled(desk: Desk) -> None:
    ready = CLEAN.Event()
    process = CLEAN.Process(target=hold_lease, args=(desk.url, LONG_S, ready), daemon=True)
    process.start()
    try:
        assert ready.wait(60)
        desk.ledger.start_run("theirs", desk.ingestion, desk.table)
        assert isinstance(desk.ledger.acquire(desk.ingestion, "ours", LIVE, LONG_S), LeaseHolder)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        # Not waited for yet: a process that nobody has asked for is a zombie, and dead all the same.
        until(lambda: isinstance(desk.ledger.acquire(desk.ingestion, "ours", LIVE, LONG_S), Lease))
    finally:
        process.kill()
        process.join()
    with desk.ledger._read() as connection:
        row = connection.execute(select(runs)).one()
    assert row.status == RunStatus.FAILED
    assert "ours took over" in row.error
    assert row.ended_at is not None


@pytest.mark.parametrize(
    ("owner", "dead"),
    [
        (LIVE, False),
        (replace(LIVE, process_started_at=LIVE.process_started_at - 100), True),
        (replace(LIVE, pid=2**22 + 1), True),
        (replace(LIVE, host="elsewhere", pid=2**22 + 1), False),
    ],
)
def test_a_process_is_dead_only_when_that_is_known(desk: Desk, owner: Owner, *, dead: bool) -> None:
    assert is_dead(owner) is dead
    desk.take("r1", owner)
    assert isinstance(desk.ledger.acquire(desk.ingestion, "r2", LIVE, LONG_S), Lease if dead else LeaseHolder)


def test_a_clock_that_is_set_kills_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system tells when it was started by the clock that it has now."""
    stat = Path("/proc/stat").read_text()
    (tmp_path / "stat").write_text(re.sub(r"(?m)^btime (\d+)$", lambda at: f"btime {int(at[1]) + 3600}", stat))
    (tmp_path / str(LIVE.pid)).symlink_to(f"/proc/{LIVE.pid}")
    before = psutil.Process().create_time()
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert psutil.Process(LIVE.pid).create_time() == pytest.approx(before + 3600, abs=1)
    assert not is_dead(LIVE)
    assert is_dead(replace(LIVE, process_started_at=LIVE.process_started_at + 100))


def test_a_lease_of_an_earlier_version_tells_when_its_process_began_by_the_clock() -> None:
    began_at = psutil.Process().create_time()
    assert not is_dead(replace(LIVE, process_started_at=began_at))
    assert is_dead(replace(LIVE, process_started_at=began_at - 100))


def test_of_many_threads_one_gets_the_lease(desk: Desk) -> None:
    got: list[Lease | LeaseHolder] = []
    gate = threading.Barrier(8)

    def contend(number: int) -> None:
        ledger = open_ledger(desk.url)
        gate.wait()
        got.append(ledger.acquire(desk.ingestion, f"r{number}", LIVE, LONG_S))
        ledger.dispose()

    threads = [threading.Thread(target=contend, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [g for g in got if isinstance(g, Lease)]
    assert len(winners) == 1
    assert {g.run_id for g in got} == {winners[0].run_id}


def test_runs_are_made_once_and_keep_how_they_ended(desk: Desk) -> None:
    for _ in range(2):
        desk.ledger.start_run("r1", desk.ingestion, desk.table)
    report = RunReport("r1", "t", RunStatus.PARTIAL, 5, 2, 1, 3, 4, 60, 700, warnings=["w"])
    desk.ledger.finish_run(report, "half of a pair: \ud800, and a nul: \0")
    with desk.ledger._read() as connection:
        row = connection.execute(select(runs)).one()
    assert (row.status, row.snapshot_id, row.files_loaded, row.rows_loaded) == ("partial", 5, 2, 60)
    assert row.warnings == '["w"]'
    assert row.error == "half of a pair: \\ud800, and a nul: \\x00"
