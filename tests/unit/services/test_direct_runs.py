"""The queue of direct runs on a real database; the processes are in memory and do as they are told."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.domain.errors import NotFoundError
from app.domain.ingestions import IngestionStatus, Method, RunRecord, Trigger
from app.domain.runs import RunReport, RunStatus
from app.domain.service import NewIngestion, NewRun, RetryPolicy
from app.persistence.keys import Keyring
from app.persistence.leases import this_process
from app.persistence.service import SqlServiceStore, open_service_store
from app.services.direct_runs import ChildProcesses, DirectRunner, DirectSettings, next_in_turn
from tests.unit.persistence.desk import until
from tests.unit.services.desk import DEAD

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class MemoryProcesses:
    """Begins and ends runs in the database as a process would. `dies` and `stays` name ingestions."""

    store: SqlServiceStore
    dies: set[str] = field(default_factory=set)
    never_begins: set[str] = field(default_factory=set)
    stays: set[str] = field(default_factory=set)
    started: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    ended: set[int] = field(default_factory=set)

    def start(self, run_id: str) -> int:
        run = self.store.run(run_id)
        assert run is not None
        if run.ingestion_id not in self.never_begins:
            self._work(run)
        self.started.append(run.ingestion_id)
        pid = len(self.started)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        return pid

    def _work(self, run: RunRecord) -> None:
        owner = DEAD if run.ingestion_id in self.dies else this_process()
        self.store.acquire(run.ingestion_id, run.id, owner, 60.0)
        self.store.begin_run(run.id)
        if run.ingestion_id not in self.dies | self.stays:
            report = RunReport(run.id, run.table, RunStatus.SUCCESS)
            self.store.end_run(report, None, RetryPolicy())

    def has_ended(self, pid: int) -> bool:
        if self.started[pid - 1] in self.stays:
            return False
        self.at_once -= 1
        return True


class Scene:
    def __init__(self, store: SqlServiceStore) -> None:
        self.store = store
        self.processes = MemoryProcesses(store)
        self.settings = DirectSettings(at_once=2, retry=RetryPolicy(times=1, delay_s=0.0))

    def queue(self, name: str, method: Method = Method.DIRECT) -> str:
        if self.store.ingestion(name) is None:
            document = {"source": {"type": "s3", "path": "s3://b/"}}
            self.store.add_ingestion(
                NewIngestion(name, "default", name, IngestionStatus.ACTIVE, "local.db.t", document)
            )
        return self.store.queue_run(NewRun(f"run-{name}", name, Trigger.MANUAL, method)).id

    def play(self, act: Callable[[DirectRunner], object]) -> object:
        async def main() -> object:
            runner = DirectRunner(self.store, self.processes, self.settings)
            try:
                return await act(runner)  # type: ignore[misc]
            finally:
                await runner.close()

        return asyncio.run(main())


@pytest.fixture
def scene(url: str, tmp_path: Path) -> Iterator[Scene]:
    store = open_service_store(url, Keyring("a passphrase", None, tmp_path), lambda _: None)
    yield Scene(store)
    store.dispose()


def test_a_run_is_waited_for(scene: Scene) -> None:
    run_id = scene.queue("a")
    run = scene.play(lambda runner: runner.run(run_id, 30.0))
    assert isinstance(run, RunRecord)
    assert (run.status, run.attempts) == (RunStatus.SUCCESS, 1)
    with pytest.raises(NotFoundError):
        scene.play(lambda runner: runner.run("no such run", 30.0))


def test_a_run_that_takes_longer_is_told_as_it_is(scene: Scene) -> None:
    scene.processes.stays = {"a"}
    run_id = scene.queue("a")

    def is_at_work() -> bool:
        run = scene.store.run(run_id)
        return run is not None and run.status is RunStatus.RUNNING

    async def act(runner: DirectRunner) -> RunRecord:
        await runner.start()
        await asyncio.to_thread(until, is_at_work)
        return await runner.run(run_id, 1.0)

    run = scene.play(act)
    assert isinstance(run, RunRecord)
    assert run.status is RunStatus.RUNNING


def test_what_was_queued_before_the_start_is_taken_up_and_few_work_at_once(scene: Scene) -> None:
    runs = [scene.queue(f"n{number}") for number in range(6)]

    async def act(runner: DirectRunner) -> None:
        await runner.start()
        await asyncio.gather(*(runner.run(run_id, 60.0) for run_id in runs))

    scene.play(act)
    assert sorted(scene.processes.started) == [f"n{number}" for number in range(6)]
    assert scene.processes.most_at_once == 2


def test_a_run_whose_process_dies_is_started_again(scene: Scene) -> None:
    scene.processes.dies = {"a"}
    run = _when_over(scene, scene.queue("a"))
    assert (run.status, run.attempts, run.errors[-1]["category"]) == (RunStatus.FAILED, 2, "run_died")
    assert scene.processes.started == ["a", "a"]


def test_a_run_of_prefect_s_whose_process_died_is_left_to_whoever_tells_prefect(scene: Scene) -> None:
    left = scene.queue("a", method=Method.PREFECT)
    scene.store.acquire("a", left, DEAD, 60.0)
    scene.store.begin_run(left)
    # The runner has looked when it carries this one out.
    assert _when_over(scene, scene.queue("b")).status is RunStatus.SUCCESS
    run = scene.store.run(left)
    assert run is not None
    assert run.status is RunStatus.RUNNING


def test_a_process_that_never_comes_to_begin_is_not_started_for_ever(scene: Scene) -> None:
    scene.processes.never_begins = {"a"}
    run = _when_over(scene, scene.queue("a"))
    assert (run.status, run.errors[-1]["category"]) == (RunStatus.FAILED, "run_died")
    assert scene.processes.started == ["a"] * 3


def _when_over(scene: Scene, run_id: str) -> RunRecord:
    async def act(runner: DirectRunner) -> RunRecord:
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:
            run = await runner.run(run_id, 1.0)
            if run.is_over:
                return run
            await asyncio.sleep(0.01)
        pytest.fail(f"{run} did not end")

    found = scene.play(act)
    assert isinstance(found, RunRecord)
    return found


def test_turns_are_taken_by_ingestions_not_by_who_asks_most() -> None:
    due = [_queued(f"r{number}", name) for number, name in enumerate("aaabc")]
    served: dict[str, float] = {}
    order: list[str] = []
    while due:
        run = next_in_turn(due, served)
        assert run is not None
        due.remove(run)
        served[run.ingestion_id] = len(order) + 1.0
        order.append(run.id)
    assert order == ["r0", "r3", "r4", "r1", "r2"]
    assert next_in_turn([], served) is None


def _queued(run_id: str, ingestion_id: str) -> RunRecord:
    return RunRecord(run_id, ingestion_id, "t", Trigger.MANUAL, Method.DIRECT, RunStatus.QUEUED, NOW)


def test_children_are_processes_of_their_own_session_with_the_environment_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        f"import os, sys; open({str(out)!r}, 'w').write(f'{{os.environ[\"MINE\"]}} {{os.getsid(0)}} {{sys.argv[1:]}}')"
    )
    children = ChildProcesses((sys.executable, "-c", code), {"MINE": "yes"})
    pid = children.start("run-1")
    while not children.has_ended(pid):
        time.sleep(0.01)
    assert out.read_text() == f"yes {pid} ['run-1']"
    assert children.has_ended(pid)
    assert os.getsid(0) != pid
