"""A run that stands still, is taken for dead, and wakes up: it ends fenced, or it had won alone.

The runs are stopped (SIGSTOP), so that neither their process is known to be dead nor their lease is renewed. Another
run takes over when the lease has run out, and does the work. Then the first goes on where it stood.
"""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.crash.scenes import STANDING_LEASE_S, Scene, State, first, interrupted, later, long, lost
from tests.support.forked import Run, Template
from tests.support.postgres import Postgres
from tests.support.seaweed import Seaweed

NewScene = Callable[[str], Scene]
# Of a run that stands still and is waited for: its successor comes before it has run out.
WAITED_FOR_LEASE_S = 30


@pytest.fixture
def new_scene(
    forks: Template, tmp_path: Path, seaweed: Seaweed, postgres: Postgres, migrated: str
) -> Iterator[NewScene]:
    """Makes scenes by the kind of their catalog and, where it is not SQLite, their database."""
    with ExitStack() as stack:

        def make(kind: str) -> Scene:
            catalog, _, database = kind.partition("-")
            url = postgres.copy_database(migrated) if database else ""
            scene = Scene(forks, tmp_path / "scene", seaweed if catalog == "rest" else None, url)
            stack.callback(scene.close)
            return scene

        yield make


def wake(zombie: Run) -> str:
    """Let it go on to its end, which is an error; its code."""
    zombie.go_on()
    assert zombie.wait() == 1, f"{zombie.stdout}\n{zombie.stderr}"
    assert zombie.json["status"] == "failed"
    return str(zombie.json["code"])


def taken_over(scene: Scene, *more: int) -> Run:
    """Another run, when the first one's lease has run out, and files have landed that it never saw."""
    scene.let_leases_run_out()
    scene.land(*more)
    return scene.load()


@pytest.mark.parametrize("kind", ["local", "rest", "local-postgres"])
@pytest.mark.parametrize("state", [first, later])
def test_between_its_last_check_and_its_request(new_scene: NewScene, kind: str, state: State) -> None:
    """Its successor has loaded the same batch: the catalog refuses its request, and the guard its retry."""
    scene = new_scene(kind)
    state(scene)
    zombie = scene.paused("commit_request:before:pause")
    taken_over(scene, 10)
    assert wake(zombie) in ("lease_lost", "fenced")
    scene.assert_exact()
    again = scene.load()
    assert again.json["files"]["loaded"] == 0
    scene.assert_exact()


@pytest.mark.parametrize("kind", ["local", "rest", "local-postgres"])
@pytest.mark.parametrize("state", [first, later])
def test_when_it_has_just_won(new_scene: NewScene, kind: str, state: State) -> None:
    """Its successor finds the batch in the table and closes it; what wakes up may not close it again."""
    scene = new_scene(kind)
    state(scene)
    zombie = scene.paused("commit_request:after:pause")
    successor = taken_over(scene, 10)
    assert "is in the table" in successor.stderr
    assert wake(zombie) == "lease_lost"
    scene.assert_exact()


@pytest.mark.parametrize("kind", ["local", "rest", "local-postgres"])
def test_when_its_ledger_was_cleared(new_scene: NewScene, kind: str) -> None:
    """Whoever clears shuts it out first: what was forgotten comes in with the next load, and once."""
    scene = new_scene(kind)
    later(scene)
    with scene.catalog() as catalog:
        catalog.load(scene.table).delete("true")
    zombie = scene.paused("commit_request:before:pause")
    scene.let_leases_run_out()
    scene.clear()
    assert wake(zombie) in ("lease_lost", "fenced")
    assert scene.load().json["files"]["loaded"] == 6
    # Of batches that were forgotten the manifests stay, wherever they are.
    scene.assert_exact(is_swept=False)


@pytest.mark.parametrize("kind", ["local", "rest"])
def test_when_its_ledger_was_lost(new_scene: NewScene, kind: str) -> None:
    """The ledger that is made anew knows of no sleeper, and still gives nobody the epoch that the sleeper has."""
    scene = new_scene(kind)
    later(scene)
    sleeper = scene.paused("data_written:after:pause")
    for file in scene.home.glob("autoloader.db*"):
        file.unlink()
    scene.land(10)
    successor = scene.start("committed:after:kill", lease_s=STANDING_LEASE_S)
    assert successor.wait() == -signal.SIGKILL, successor.stdout
    # Its own ledger, which nobody else sees any more, tells it that the lease is its own.
    sleeper.go_on()
    sleeper.wait()
    scene.load()
    scene.assert_exact(is_swept=False)


@pytest.mark.parametrize(
    ("state", "place"),
    [
        (first, "batch_claimed:before"),
        (first, "batch_claimed:after"),
        (first, "table_drafted:after"),
        (later, "data_written:before"),
        (later, "data_written:after"),
        (first, "manifest_written:before"),
        (later, "manifest_written:before"),
        (later, "commit_staged:after"),
        (later, "committed:after"),
        (later, "batch_closed:before"),
        (interrupted, "open_batches_read:after"),
        (interrupted, "batch_looked_up:after"),
        (interrupted, "table_fenced:before"),
        (interrupted, "fence_request:before"),
        (interrupted, "fence_request:after"),
        (lost, "fence_request:before"),
        (lost, "ledger_rebuilt:before"),
        (lost, "head_restored:before"),
        (lost, "batch_restored:before"),
    ],
)
def test_anywhere_else(scene_in: Callable[[State], Scene], state: State, place: str) -> None:
    scene = scene_in(state)
    zombie = scene.paused(f"{place}:pause")
    taken_over(scene, 10)
    assert wake(zombie) in ("lease_lost", "fenced")
    assert scene.load().json["files"]["loaded"] == 0
    scene.assert_exact()


@pytest.mark.parametrize("place", ["leftovers_listed:after", "leftover_removed:before"])
def test_amid_a_sweep(scene_in: Callable[[State], Scene], place: str) -> None:
    """What it has listed is nobody's for ever, so that it may remove it whenever it wakes up."""
    scene = scene_in(interrupted)
    zombie = scene.paused(f"{place}:pause")
    taken_over(scene, 10)
    zombie.go_on()
    assert zombie.wait() == 0, zombie.stdout
    scene.assert_exact()


def test_two_sleepers_and_a_third(scene_in: Callable[[State], Scene]) -> None:
    """Each takes the batch over from the one before, and stops with its request in hand."""
    scene = scene_in(later)
    sleepers = []
    for _ in range(2):
        sleepers.append(scene.paused("commit_request:before:pause"))
        scene.let_leases_run_out()
    taken_over(scene, 10)
    for sleeper in sleepers:
        assert wake(sleeper) in ("lease_lost", "fenced")
    scene.assert_exact()


def test_its_own_retry(scene_in: Callable[[State], Scene]) -> None:
    """Another program is faster than its first request, and its successor than its second."""
    scene = scene_in(later)
    with scene.catalog() as catalog:
        rival = catalog.load(scene.table).transaction()
        with rival.update_snapshot().fast_append():
            pass
        zombie = scene.paused("commit_request:before:pause,commit_request:before:pause:hit=2")
        rival.commit_transaction()
        zombie.go_on()
        zombie.wait_until_stopped()
    taken_over(scene, 10)
    assert wake(zombie) in ("lease_lost", "fenced")
    scene.assert_exact()


def test_a_first_load_that_wins_when_its_successor_has_looked(scene_in: Callable[[State], Scene]) -> None:
    """Without a table there is nothing to fence: of the two only one can make it, and here it is the sleeper."""
    scene = scene_in(first)
    zombie = scene.paused("commit_request:before:pause")
    scene.let_leases_run_out()
    successor = scene.paused("commit_request:before:pause")
    assert wake(zombie) == "lease_lost"
    successor.go_on()
    assert successor.wait() == 0, successor.stdout
    scene.assert_exact()


def test_a_lease_that_runs_out_by_itself(scene_in: Callable[[State], Scene]) -> None:
    """Nothing is done by hand: the successor waits until the lease has run out."""
    zombie, scene = stopped_between_renewals(scene_in)
    scene.land(10)
    successor = scene.load()
    assert "Waiting for run" in successor.stderr
    assert wake(zombie) in ("lease_lost", "fenced")
    scene.assert_exact()


def stopped_between_renewals(scene_in: Callable[[State], Scene]) -> tuple[Run, Scene]:
    """One that stops while it renews its lease takes SQLite's lock along, and is begun anew."""
    for _ in range(10):
        scene = scene_in(later)
        zombie = scene.start("commit_request:before:pause", lease_s=WAITED_FOR_LEASE_S)
        zombie.wait_until_stopped()
        ledger = sqlite3.connect(scene.home / "autoloader.db", timeout=0.1, isolation_level=None)
        with closing(ledger), suppress(sqlite3.OperationalError):
            ledger.execute("begin immediate")
            return zombie, scene
        zombie.kill()
    raise AssertionError("It always holds the lock.")


def test_amid_a_transaction_of_its_ledger(scene_in: Callable[[State], Scene]) -> None:
    """It holds SQLite's lock, so nobody gets by, lease or not; and what it does when it wakes up is still its right."""
    scene = scene_in(later)
    zombie = scene.paused("close_committed:before:pause")
    assert scene.load(status=1).json["code"] == "ledger_busy"
    zombie.go_on()
    assert zombie.wait() == 0, zombie.stdout
    scene.assert_exact()


@pytest.mark.parametrize(
    "place", ["expiry_noted:before", "expiry_request:before", "expiry_request:after", "expired_listed:after"]
)
def test_amid_an_expiry(scene_in: Callable[[State], Scene], place: str) -> None:
    """It lets nothing go that its successor needs: its request is refused, and what it has listed is nobody's."""
    scene = scene_in(long)
    zombie = scene.paused(f"{place}:pause")
    taken_over(scene, 60)
    zombie.go_on()
    assert zombie.wait() in (0, 1), zombie.stderr
    assert scene.load().json["files"]["loaded"] == 0
    scene.assert_exact()
    scene.assert_no_metadata_lies_about()
