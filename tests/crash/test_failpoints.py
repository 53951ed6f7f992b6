"""Every step of a run is where a run ends, before it and after it; whatever happened, the next plain load mends it."""

from __future__ import annotations

import ast
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from app.domain.failpoints import FAILPOINTS, MOMENTS, Moment, Step
from app.domain.runs import RunStatus
from app.engines.embedded.engine import EmbeddedEngine
from tests.crash.scenes import LEASE_S, Scene, State, first, interrupted, landed, later, long, lost, unstalled
from tests.support.command import ROOT
from tests.support.forked import TIMEOUT_S, Template
from tests.support.seaweed import Seaweed
from tests.support.servers import is_alive
from tests.support.worksite import Worksite

# Steps that a first load does not come to.
STATES: dict[Step, State] = {
    "batch_looked_up": interrupted,
    "table_fenced": interrupted,
    "fence_request": interrupted,
    "leftovers_listed": interrupted,
    "leftover_removed": interrupted,
    "expiry_noted": long,
    "expiry_request": long,
    "history_expired": long,
    "expired_listed": long,
    "ledger_rebuilt": lost,
    "batch_restored": lost,
    "head_restored": lost,
    "drift_drafted": later,
    # In a first load the child would be ended by looking for the schema.
    "file_read": later,
}
# Of a child process, which the run replaces when it ends.
CHILDS: tuple[Step, ...] = ("file_read", "data_file_made", "data_file_written", "data_file_closed")
# Once more, where there is a table.
AGAIN: dict[Step, State] = {
    "batch_claimed": later,
    "data_written": later,
    "manifest_written": later,
    "footers_read": later,
    "commit_staged": later,
    "commit_request": later,
    "committed": interrupted,
    "batch_closed": landed,
    "close_committed": landed,
    "table_fenced": lost,
    "leftover_removed": long,
}
# What has to happen before the step is come to at all.
BEFOREHAND: dict[Step, str] = {
    "outcome_looked_up": "commit_request:after:raise,",
    "lease_renewed": "batch_claimed:after:delay=15,",
}
# Of a run in which an error ends the heartbeat: it comes to its first beat in the midst of that delay.
BEATING_LEASE_S = 20
# An error there may come from behind the request, so the run finds out what became of it and goes on.
SURVIVED: tuple[Step, ...] = (*CHILDS, "commit_request", "expiry_request")
# The steps of the commit's path, for the catalog that is a server.
ON_THE_WIRE: dict[Step, State] = {
    "table_drafted": first,
    "data_file_closed": first,
    "data_written": first,
    "manifest_written": later,
    "footers_read": later,
    "commit_staged": later,
    "commit_request": later,
    "committed": first,
    "outcome_looked_up": first,
    "batch_looked_up": interrupted,
    "table_fenced": interrupted,
    "fence_request": interrupted,
    "batch_closed": landed,
    "expiry_noted": long,
    "expiry_request": long,
}

CASES = [
    *((step, STATES.get(step, first)) for step in FAILPOINTS),
    *AGAIN.items(),
]


SceneIn = Callable[[State], Scene]


def named(cases: list[tuple[Step, State]]) -> list[object]:
    return [
        pytest.param(step, state, moment, id=f"{step}-{state.__name__}-{moment}")
        for step, state in cases
        for moment in MOMENTS
    ]


@pytest.fixture
def rest_scene_in(forks: Template, tmp_path: Path, seaweed: Seaweed) -> Iterator[SceneIn]:
    """Gives a scene of the catalog that is a server, in a state."""
    with ExitStack() as stack:

        def made(state: State) -> Scene:
            scene = Scene(forks, tmp_path / uuid.uuid4().hex, seaweed)
            stack.callback(scene.close)
            state(scene)
            return scene

        yield made


def died(scene: Scene, step: Step, moment: Moment) -> Scene:
    """The scene, in which the process of a run was ended there; where that is a child's, the run lived on."""
    failpoint = f"{BEFOREHAND.get(step, '')}{step}:{moment}:kill"
    if step in CHILDS:
        scene.load(failpoint)
    else:
        scene.load_and_die(failpoint)
    return scene


def mended(scene: Scene) -> None:
    """One plain load later everything is as if nothing had happened."""
    scene.load()
    scene.assert_exact()


@pytest.mark.parametrize(("step", "state", "moment"), named(CASES))
def test_killed(scene_in: SceneIn, step: Step, state: State, moment: Moment) -> None:
    scene = unstalled(lambda: died(scene_in(state), step, moment))
    mended(scene)
    if state is long:
        scene.assert_no_metadata_lies_about()


@pytest.mark.parametrize(("step", "state", "moment"), named(list(ON_THE_WIRE.items())))
def test_killed_on_the_wire(rest_scene_in: SceneIn, step: Step, state: State, moment: Moment) -> None:
    mended(unstalled(lambda: died(rest_scene_in(state), step, moment)))


@pytest.mark.parametrize(("step", "state", "moment"), named(CASES[: len(FAILPOINTS)]))
def test_a_defect(scene_in: SceneIn, step: Step, state: State, moment: Moment) -> None:
    """An error that nothing knows ends the run aloud, or is lived through; it is never taken for success by mistake."""
    scene = scene_in(state)
    run = scene.load(
        f"{BEFOREHAND.get(step, '')}{step}:{moment}:raise",
        status=0 if step in SURVIVED else 1,
        lease_s=BEATING_LEASE_S if step == "lease_renewed" else None,
    )
    if step not in SURVIVED:
        assert run.json["status"] == "failed"
        assert run.json["code"] in ("internal", "engine_died", "commit_unknown"), run.stdout
    mended(scene)


@pytest.mark.parametrize("step", CHILDS)
def test_killed_while_its_child_stands_still(scene_in: SceneIn, step: Step) -> None:
    """The child goes with it, and its half of a file is nobody's."""
    scene = scene_in(later)
    run = scene.start(f"{step}:before:pause")
    child = wait_for_stopped_child(run.pid)
    run.kill()
    wait_until_gone(child)
    mended(scene)


def wait_for_stopped_child(pid: int) -> psutil.Process:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for child in psutil.Process(pid).children():
            # Not one that has just ended.
            with suppress(psutil.NoSuchProcess):
                if child.status() == psutil.STATUS_STOPPED:
                    return child
        time.sleep(0.02)
    raise AssertionError("No child came to the place where it stands still.")


def wait_until_gone(process: psutil.Process) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while is_alive(process.pid):
        assert time.monotonic() < deadline, f"{process} outlived its run."
        time.sleep(0.02)


# --- a lease that runs out --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[EmbeddedEngine]:
    """Of runs in this process."""
    made = EmbeddedEngine(processes=1)
    yield made
    made.close()


@pytest.mark.parametrize(
    "place", ["batch_claimed:after", "commit_request:before", "committed:after", "files_joined:before"]
)
def test_slower_than_its_lease(
    scene_in: SceneIn, engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The heartbeat goes on: nobody takes over, and the run ends well."""
    # Ten beats a second, of a lease that nobody has to hurry under.
    monkeypatch.setattr("app.services.heartbeat.RENEWALS", 10 * LEASE_S)
    scene = scene_in(later)
    rivals: list[str] = []

    def stands_still(at: str) -> None:
        if at != place or rivals:
            return
        scene.let_leases_run_out()
        scene.wait_until_renewed()
        rivals.append(scene.load(wait_s=0, status=1).json["code"])

    settings = {"autoloader_lease_s": LEASE_S}
    report = Worksite(scene.landing, scene.home, engine, str(scene.table), settings=settings).load(stands_still)
    assert rivals == ["run_in_progress"]
    assert report.status is RunStatus.SUCCESS, report
    scene.assert_exact()


@pytest.mark.parametrize(
    "place", ["data_written:before", "manifest_written:after", "committed:before", "batch_closed:before"]
)
def test_slower_than_its_lease_without_a_heartbeat(scene_in: SceneIn, place: str) -> None:
    """The lease runs out, and nobody takes it: the run stops by itself, and the next one settles what it left."""
    scene = scene_in(later)
    # Of a lease so long that no beat is near.
    run = scene.paused(f"{place}:pause")
    scene.let_leases_run_out()
    run.go_on()
    assert run.wait() == 1, f"{run.stdout}\n{run.stderr}"
    assert run.json["code"] == "lease_lost", run.stdout
    mended(scene)


def test_a_failpoint_that_is_none_is_an_error_and_nothing_is_loaded(scene_in: SceneIn) -> None:
    scene = scene_in(first)
    run = scene.load("comitted:before", status=2)
    assert run.json["code"] == "invalid_field"
    assert "AUTOLOADER_FAILPOINT" in run.json["detail"]
    assert not (scene.home / "autoloader.db").exists()


# --- a history that was cut -------------------------------------------------------------------------------------------


def test_a_ledger_is_given_back_by_a_table_that_forgot_its_snapshots(scene_in: SceneIn) -> None:
    scene = scene_in(long)
    scene.load()
    for file in scene.home.glob("autoloader.db*"):
        file.unlink()
    scene.land(60)
    run = scene.load()
    assert run.json["files"]["loaded"] == 1, run.stdout
    scene.assert_exact()


# --- the list ---------------------------------------------------------------------------------------------------------


def test_every_step_of_the_code_is_in_the_list() -> None:
    """That every step of the list is come to is what the tests above fail by; each of them takes the list as it is."""
    called = [name for path in (ROOT / "app").rglob("*.py") for name in steps_of(ast.parse(path.read_text()))]
    assert set(called) <= set(FAILPOINTS)
    assert len(called) > len(FAILPOINTS) / 2


def steps_of(module: ast.Module) -> Iterator[str]:
    """The names that calls of a module hand to failpoints."""
    for node in ast.walk(module):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in MOMENTS or node.func.attr == "step":
            yield from (c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str))
