"""What a catalog may do to a commit: whatever it answers, and whether it applied it or not, every row is there once."""

from __future__ import annotations

import pytest

from tests.support.fault_proxy import Action, Answer, Cut, Hold
from tests.support.fault_table import COMMIT_FAULTS, NOTHING, SUCCESS, CommitFault
from tests.support.fault_worlds import FaultWorld, Loaded

COMMIT = r"/tables/t_\w+$"


@pytest.fixture(params=["first", "later"])
def begun(world: FaultWorld, request: pytest.FixtureRequest) -> FaultWorld:
    """Where the commit makes the table, and where it adds to one; file 0 is to be loaded."""
    if request.param == "later":
        world.land(9)
        assert world.load().code == ""
        world.known = (9,)
    world.land(0)
    return world


def taken_for(load: Loaded) -> str:
    """What the product took the answer for."""
    if "commit_unknown" in load.events:
        return "unknown"
    return "conflict" if "CommitFailedException" in load.seen else NOTHING


def away_before_the_commit(world: FaultWorld) -> None:
    """The catalog answers nothing any more from the first commit on; a rule that is there already goes first."""
    world.on_the_way["commit_request:before"] = lambda: world.rest.on(".*", "", Answer(503, applied=False), times=None)


def settles(world: FaultWorld) -> None:
    """A plain load later all is right, and it says so."""
    after = world.load()
    assert (after.ends, after.report.files_loaded + after.report.files_known) == (SUCCESS, 1 + len(world.known))
    world.assert_exact(0, *world.known)


@pytest.mark.parametrize("fault", COMMIT_FAULTS, ids=lambda f: f.words)
def test_applied(begun: FaultWorld, fault: CommitFault) -> None:
    rule = begun.rest.on("POST", COMMIT, fault.make(True))  # noqa: FBT003
    with begun.patient_with(fault.words):
        load = begun.load()
    assert (rule.acted, load.seen, taken_for(load), load.ends) == (1, fault.seen, fault.taken, SUCCESS)
    assert load.report.files_loaded == 1
    settles(begun)


@pytest.mark.parametrize("fault", [f for f in COMMIT_FAULTS if f.seen_lost is not None], ids=lambda f: f.words)
def test_not_applied(begun: FaultWorld, fault: CommitFault) -> None:
    rule = begun.rest.on("POST", COMMIT, fault.make(False))  # noqa: FBT003
    with begun.patient_with(fault.words):
        load = begun.load()
    ends = fault.later_lost if begun.known else fault.first_lost
    assert (rule.acted, load.seen, taken_for(load), load.ends) == (1, fault.seen_lost, fault.taken_lost, ends)
    settles(begun)


@pytest.mark.parametrize(
    "action",
    [Cut("close", applied=False), Answer(503, applied=False), Answer(401, applied=False)],
    ids=["close", "503", "401"],
)
def test_refused_for_ever(begun: FaultWorld, action: Action) -> None:
    """Nobody knows what becomes of those requests, so the batch stays open, and its data files stay."""
    rule = begun.rest.on("POST", COMMIT, action, times=None)
    load = begun.load()
    assert load.ends == "commit_unknown"
    assert "looks the batch up" in load.text
    assert rule.acted < 20
    begun.rest.clear()
    settles(begun)


@pytest.mark.parametrize("applied", [True, False])
def test_away_from_the_commit_on(begun: FaultWorld, applied: bool) -> None:  # noqa: FBT001
    begun.rest.on("POST", COMMIT, Cut("reset", applied=applied))
    away_before_the_commit(begun)
    load = begun.load()
    assert load.ends == "commit_unknown"
    begun.rest.clear()
    settles(begun)


def test_a_contest_without_end_is_given_up(world: FaultWorld) -> None:
    """Each refusal is a clear one; nothing of the batch stays, and the catalog is not asked for ever."""
    world.land(9)
    world.load()
    table = world.found()
    assert table is not None
    with table.transaction() as change:
        change.set_properties({"commit.retry.num-retries": "1"})
    world.land(0)
    world.contest_s = 0.2
    rule = world.rest.on("POST", COMMIT, Answer(409, applied=False), times=None)
    load = world.load()
    assert load.ends == "table_conflict"
    assert rule.acted < 100
    world.rest.clear()
    world.known = (9,)
    settles(world)


@pytest.mark.parametrize("when", ["while the same run tries again", "after the next run"])
def test_late(begun: FaultWorld, when: str) -> None:
    """The request of a run that gave up arrives when the batch is in: the catalog refuses it."""
    hold = Hold()
    begun.rest.on("POST", COMMIT, hold)
    if when == "after the next run":
        away_before_the_commit(begun)
        assert begun.load().ends == "commit_unknown"
        begun.rest.clear()
    assert begun.load().ends == SUCCESS
    begun.assert_exact(0, *begun.known)
    assert hold.deliver().status == 409
    settles(begun)


def test_late_and_first(begun: FaultWorld) -> None:
    """It arrives before the next run looks: then it is what is in the table, and the ledger says so."""
    hold = Hold()
    begun.rest.on("POST", COMMIT, hold)
    away_before_the_commit(begun)
    assert begun.load().ends == "commit_unknown"
    begun.rest.clear()
    assert hold.deliver().status == 200
    load = begun.load()
    assert (load.ends, load.report.files_loaded) == (SUCCESS, 1)
    assert any("is in the table" in note for note in load.notes)
    settles(begun)
