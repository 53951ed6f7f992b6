"""A connection to PostgreSQL that breaks off at the worst moments, with the transaction applied or not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fault_table import SUCCESS
from tests.support.fault_worlds import FaultWorld
from tests.support.postgres import Postgres
from tests.support.tcp_proxy import Break, TcpProxy, tcp_proxy_before

COMMIT = rb"COMMIT"
# What is said in a transaction of each kind.
TRANSACTIONS = {"acquire": rb"UPDATE leases", "claim": rb"INSERT INTO batches", "close": rb"UPDATE batches"}


@pytest.fixture
def line(postgres: Postgres) -> Iterator[TcpProxy]:
    """A proxy before the ledger's server."""
    with tcp_proxy_before(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def begun(world: FaultWorld, line: TcpProxy, postgres: Postgres, migrated: str) -> FaultWorld:
    """The ledger is in PostgreSQL, behind a proxy; file 9 is in the table, file 0 is to be loaded."""
    world.ledger_url = postgres.copy_database(migrated).replace(f":{postgres.port}/", f":{line.port}/")
    world.land(9)
    assert world.load().ends == SUCCESS
    world.known = (9,)
    world.land(0)
    return world


def settles(world: FaultWorld) -> None:
    """The next load makes all right, when the lease has run out that this process, which lives on, may still have."""
    world.let_leases_run_out()
    assert world.load().ends == SUCCESS
    world.assert_exact(0, 9)


@pytest.mark.parametrize("how", ["cut", "lost"])
@pytest.mark.parametrize("what", TRANSACTIONS)
def test_at_the_end_of_a_transaction(begun: FaultWorld, line: TcpProxy, what: str, how: str) -> None:
    broken = Break(TRANSACTIONS[what], COMMIT, how)
    line.breaks = [broken]
    load = begun.load()
    assert (broken.done, load.ends) == (True, "ledger_unreachable")
    assert load.report.stopped_by is not None
    assert load.report.stopped_by.advice
    assert begun.ledger_url.partition("@")[0] not in load.text
    settles(begun)


@pytest.mark.parametrize("what", TRANSACTIONS)
def test_in_the_middle_of_a_transaction(begun: FaultWorld, line: TcpProxy, what: str) -> None:
    broken = Break(rb"", TRANSACTIONS[what], "cut")
    line.breaks = [broken]
    load = begun.load()
    assert (broken.done, load.ends) == (True, "ledger_unreachable")
    settles(begun)


def test_a_server_that_takes_its_time(begun: FaultWorld, line: TcpProxy) -> None:
    line.breaks = [Break(after, COMMIT, 1.0) for after in TRANSACTIONS.values()]
    assert begun.load().ends == SUCCESS
    assert all(broken.done for broken in line.breaks)
    begun.assert_exact(0, 9)
