"""Runs of the service in real processes: killed, cancelled, timed out, left alone by their service; rows exact."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.domain.ingestions import Ingestion, Method, RunRecord, Trigger, User
from app.domain.redaction import Redactor
from app.domain.runs import RunStatus
from app.services.prefect_connection import IMPATIENT
from app.wiring.scheduling import open_executor
from app.wiring.service import Service, build_service
from tests.support.command import ROOT, Home
from tests.support.events import event_file, event_files
from tests.support.postgres import Postgres
from tests.support.prefect_server import PrefectServer
from tests.support.seaweed import Seaweed

USER = User()
# A run's processes start in a second or two; on a busy machine they may take many.
PATIENCE_S = 120.0
# What runs may take that are to take too long, and how long those stand still in the midst of their work.
TIMEOUTS_S = (5, 60)
STANDS_STILL_S = 100


class Site:
    """A home, a folder of files, and services that come and go."""

    def __init__(self, folder: Path) -> None:
        self.landing = folder / "landing"
        self.landing.mkdir()
        self.settings: dict[str, Any] = {"autoloader_home": folder / "home", "prefect_task_retry_delay_seconds": 0}
        (folder / "home").mkdir()
        self.environ: dict[str, str] = {}

    def land(self, *numbers: int) -> None:
        for number in numbers:
            (self.landing / f"batch_{number}.json").write_bytes(event_file(number))

    @asynccontextmanager
    async def service(self) -> AsyncIterator[Service]:
        environ = {**os.environ, **{k.upper(): str(v) for k, v in self.settings.items()}, **self.environ}
        service = build_service(Settings(**self.settings), environ, Redactor())
        try:
            yield service
        finally:
            await service.runner.close()
            service.close()

    async def create(self, service: Service, **source: Any) -> Ingestion:
        document = {
            "name": "Events",
            "source": {"path": str(self.landing), **source},
            "destination": {"database": "db", "table": "events"},
        }
        return (await service.ingestions.create_ingestion(document, USER)).ingestion

    def run_flow(self, ingestion: Ingestion, prefect: PrefectServer) -> int:
        """Have a process carry out a flow run of it, as a worker's does; its exit status."""
        code = (
            "from app.prefect.flows.run_ingestion import run_ingestion_flow; "
            f"run_ingestion_flow({ingestion.id!r}, 'manual')"
        )
        given = {name.upper(): str(value) for name, value in self.settings.items()}
        # With the patience that a worker has.
        plain = {name: value for name, value in os.environ.items() if name not in IMPATIENT}
        environ = {**plain, "PYTHONPATH": str(ROOT), **prefect.environ, **given, **self.environ}
        return subprocess.run(
            [sys.executable, "-c", code], env=environ, cwd=self.landing.parent, check=False
        ).returncode

    def ids(self, service: Service) -> list[int]:
        name = service.product.table_name("local.db.events")
        found = service.product.catalog("local").query(name, "select id from db.events order by id")
        return [int(str(row["id"])) for row in found]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scene())  # type: ignore[arg-type]


async def over(service: Service, run: RunRecord) -> RunRecord:
    """The run when it has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = await service.ingestions.get_run(run.ingestion_id, run.id, USER)
        if found.is_over:
            return found
        await asyncio.sleep(0.1)
    pytest.fail(f"{found} did not end")


async def at_work(service: Service, run: RunRecord, *, batches: int = 0) -> int:
    """The process that is at work on the run, once so many batches of it are in the table."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        holder = await asyncio.to_thread(_holder, service, run)
        if holder is not None and holder[1] >= batches:
            return holder[0]
        await asyncio.sleep(0.05)
    pytest.fail(f"nobody works on {run}")


def _holder(service: Service, run: RunRecord) -> tuple[int, int] | None:
    with service.store._read() as connection:
        pid = connection.exec_driver_sql(f"select pid from leases where run_id = '{run.id}'").scalar()
    return None if pid is None else (int(pid), _batches(service))


def _batches(service: Service) -> int:
    """How many are committed."""
    with service.store._read() as connection:
        found = connection.exec_driver_sql("select count(*) from batches where state = 'committed'")
        return int(found.scalar() or 0)


def test_a_run_with_stored_credentials_loads_what_is_new(
    site: Site, seaweed: Seaweed, bucket: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The key is in the database alone: in no environment, on no command line, in no log line."""
    keys = seaweed.credentials | {"aws_region": "us-east-1"}

    async def scene() -> None:
        async with site.service() as service:
            made = await site.create(service, path=f"s3://{bucket}/data/", credentials=keys)
            for landed, loaded in (((0, 1, 2), 3), ((3, 4), 2), ((), 0)):
                seaweed.put(bucket, event_files(*landed))
                run = (await service.ingestions.trigger_manual_run(made.id, USER)).run
                run = await over(service, run)
                assert (run.method, run.status, run.files_loaded) == (Method.DIRECT, RunStatus.SUCCESS, loaded)
                assert run.rows_loaded == loaded * 1000
                assert (run.snapshot_id is None) is (loaded == 0)
            assert site.ids(service) == list(range(5000))

    play(scene)
    logged = capfd.readouterr()
    assert "run_ended" in logged.err
    assert keys["aws_secret_access_key"] not in logged.err + logged.out


def test_a_process_that_is_killed_in_the_middle_is_followed_by_another(site: Site) -> None:
    site.land(0, 1, 2)
    site.settings["autoloader_batch_files"] = 1
    site.environ["AUTOLOADER_FAILPOINT"] = "batch_claimed:after:kill:hit=2"

    async def scene() -> None:
        async with site.service() as service:
            made = await site.create(service)
            run = await over(service, (await service.ingestions.trigger_manual_run(made.id, USER)).run)
            assert (run.status, run.attempts) == (RunStatus.SUCCESS, 2)
            assert (run.files_loaded, run.rows_loaded, run.errors) == (3, 3000, ())
            assert site.ids(service) == list(range(3000))

    play(scene)


def test_a_run_is_cancelled_in_the_middle_and_the_next_one_takes_up_the_rest(site: Site) -> None:
    site.land(0, 1, 2)
    site.settings |= {"autoloader_batch_files": 1, "autoloader_direct_run_wait_s": 0}
    site.environ["AUTOLOADER_FAILPOINT"] = "batch_claimed:after:delay=100:hit=2"

    async def scene() -> None:
        async with site.service() as service:
            made = await site.create(service)
            run = (await service.ingestions.trigger_manual_run(made.id, USER)).run
            assert not run.is_over
            await at_work(service, run, batches=1)
            await service.ingestions.cancel_run(made.id, run.id, USER)
            ended = await over(service, run)
            assert (ended.status, ended.files_loaded, ended.attempts) == (RunStatus.CANCELLED, 1, 1)
            assert site.ids(service) == list(range(1000))
        site.environ.clear()
        async with site.service() as service:
            await over(service, (await service.ingestions.trigger_manual_run(made.id, USER)).run)
            assert site.ids(service) == list(range(3000))

    play(scene)


def test_a_run_goes_on_without_its_service_and_without_its_process(site: Site) -> None:
    """The service ends, then the run's process is killed: the next service has it carried out to its end."""
    site.land(0, 1, 2)
    site.settings |= {"autoloader_batch_files": 1, "autoloader_direct_run_wait_s": 0}
    site.environ["AUTOLOADER_FAILPOINT"] = "batch_claimed:after:delay=100:hit=2"

    async def scene() -> None:
        async with site.service() as service:
            made = await site.create(service)
            run = (await service.ingestions.trigger_manual_run(made.id, USER)).run
            pid = await at_work(service, run, batches=1)
        site.environ.clear()
        async with site.service() as service:
            assert await asyncio.to_thread(service.store.is_run_alive, run.id)
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(os.waitpid, pid, 0)
            await service.runner.start()
            ended = await over(service, run)
            assert (ended.status, ended.attempts, ended.rows_loaded) == (RunStatus.SUCCESS, 2, 3000)
            assert site.ids(service) == list(range(3000))

    play(scene)


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Site]:
    """Places whose runs stand still behind their first batch until they have taken too long.

    What they may take begins with the run's process, and the batch takes a second of it. Where the machine stood still
    for all that time, the next place gives it more.
    """

    def places() -> Iterator[Site]:
        for timeout_s in TIMEOUTS_S:
            folder = tmp_path / f"{timeout_s}"
            folder.mkdir()
            site = Site(folder)
            site.land(0, 1, 2)
            site.settings |= {"autoloader_batch_files": 1, "prefect_flow_run_timeout_seconds": timeout_s}
            site.environ["AUTOLOADER_FAILPOINT"] = f"batch_claimed:after:delay={STANDS_STILL_S}:hit=2"
            yield site

    return places()


def test_a_run_that_takes_too_long_is_ended_and_what_was_committed_stays(sites: Iterator[Site]) -> None:
    async def scene() -> None:
        for site in sites:
            async with site.service() as service:
                made = await site.create(service)
                run = await over(service, (await service.ingestions.trigger_manual_run(made.id, USER)).run)
                if not _batches(service):
                    continue
                _took_too_long(site, run, Method.DIRECT)
                assert site.ids(service) == list(range(1000))
                return
        pytest.fail("no batch was committed in time")

    play(scene)


def test_a_flow_run_that_takes_too_long_ends_as_its_run_does(sites: Iterator[Site], prefect: PrefectServer) -> None:
    async def scene() -> None:
        for site in sites:
            async with site.service() as service:
                made = await site.create(service)
                assert await asyncio.to_thread(site.run_flow, made, prefect) != 0
                (run,) = await asyncio.to_thread(service.store.list_runs, made.id, limit=10)
                if not _batches(service):
                    continue
                _took_too_long(site, run, Method.PREFECT)
                assert site.ids(service) == list(range(1000))
                told = prefect.ask(f"/flow_runs/{run.flow_run_id}")["state"]
                assert told["type"] == "FAILED"
                assert f"took longer than {_timeout_s(site)} s" in told["message"]
                return
        pytest.fail("no batch was committed in time")

    play(scene)


def _took_too_long(site: Site, run: RunRecord, method: Method) -> None:
    assert (run.method, run.status, run.attempts) == (method, RunStatus.FAILED, 1)
    assert (run.errors[-1]["category"], run.files_loaded, run.rows_loaded) == ("timed_out", 1, 1000)
    assert f"longer than {_timeout_s(site)} s" in run.errors[-1]["message"]


def _timeout_s(site: Site) -> int:
    return int(site.settings["prefect_flow_run_timeout_seconds"])


def test_a_run_whose_processes_are_killed_is_given_up_after_its_retries(site: Site) -> None:
    site.land(0)
    site.settings["prefect_max_task_retries"] = 1
    site.environ["AUTOLOADER_FAILPOINT"] = "table_read:after:kill"

    async def scene() -> None:
        async with site.service() as service:
            made = await site.create(service)
            run = await over(service, (await service.ingestions.trigger_manual_run(made.id, USER)).run)
            assert (run.status, run.attempts) == (RunStatus.FAILED, 2)
            assert run.errors[-1]["category"] == "run_died"

    play(scene)


def test_a_run_goes_on_as_late_as_the_setting_says(site: Site) -> None:
    site.land(0)
    site.settings |= {"prefect_task_retry_delay_seconds": 3600, "autoloader_direct_run_wait_s": PATIENCE_S}
    site.environ["AUTOLOADER_FAILPOINT"] = "table_read:after:kill"

    async def scene() -> None:
        async with site.service() as service:
            made = await site.create(service)
            run = (await service.ingestions.trigger_manual_run(made.id, USER)).run
            assert (run.status, run.attempts) == (RunStatus.QUEUED, 1)
            assert run.next_attempt_at is not None
            assert run.next_attempt_at - datetime.now(UTC) > timedelta(minutes=50)

    play(scene)


def test_two_services_on_one_postgresql_carry_each_run_out_once(site: Site, postgres: Postgres, migrated: str) -> None:
    site.land(0, 1)
    site.settings |= {"database_url": postgres.copy_database(migrated), "secret_key": "a passphrase of the tests"}
    site.settings["autoloader_direct_run_wait_s"] = 0
    site.environ = {"SECRET_KEY": "a passphrase of the tests"}

    async def scene() -> None:
        async with site.service() as first, site.service() as second:
            await second.runner.start()
            made = await site.create(first)
            runs = []
            for number in (2, 3):
                run = (await first.ingestions.trigger_manual_run(made.id, USER)).run
                runs.append(await over(second, run))
                site.land(number)
            assert [(run.status, run.attempts, run.rows_loaded) for run in runs] == [
                (RunStatus.SUCCESS, 1, 2000),
                (RunStatus.SUCCESS, 1, 1000),
            ]
            assert site.ids(first) == list(range(3000))

    play(scene)


def test_keys_are_rotated_by_a_command_and_orders_are_only_carried_out_where_they_were_given(site: Site) -> None:
    keys = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "not-a-real-secret"}

    async def scene() -> None:
        async with site.service() as service:
            made = await site.create(service, path="s3://bucket/data/", credentials=keys)
            home = Home(site.settings["autoloader_home"], {"AUTOLOADER_HOME": "."})
            key = (home.folder / "secret.key").read_text()
            for rewrapped in (1, 1):
                done = await asyncio.to_thread(home.run, "keys", "rotate", "--output", "json")
                assert (done.status, done.json) == (0, {"rewrapped": rewrapped})
            assert (home.folder / "secret.key").read_text() != key
            # A process that has the database open goes on with the new key.
            assert await asyncio.to_thread(service.store.credentials, made.id) == keys
            done = await asyncio.to_thread(home.run, "run-order", "no-such-run")
            assert done.status == 1
            assert "wrong_database" in done.stderr
            assert str(home.folder / "autoloader.db") in done.stderr

    play(scene)
    nowhere = Home(site.landing, {"AUTOLOADER_HOME": str(site.landing)})
    assert "wrong_database" in nowhere.run("run-order", "no-such-run").stderr
    assert list(site.landing.iterdir()) == []


def test_files_that_are_still_being_written_are_told_with_the_run(site: Site) -> None:
    async def made() -> Ingestion:
        async with site.service() as service:
            return await site.create(service)

    ingestion = asyncio.run(made())
    told = []
    for number, grows in ((0, False), (1, True)):
        site.land(number)
        # So long that whoever writes comes to write meanwhile.
        site.settings["autoloader_settle_s"] = 10 if grows else 0.5
        with (
            written_to(site.landing / f"batch_{number}.json", grows=grows),
            open_executor(Settings(**site.settings), os.environ, Redactor()) as executor,
        ):
            run = executor.execute(ingestion.id, Trigger.SCHEDULED, flow_run_id=str(number)).run
        assert run is not None
        told.append((run.status, run.files_loaded, run.warnings))
    assert told == [
        (RunStatus.SUCCESS, 1, ()),
        (RunStatus.SUCCESS, 0, ("Files that are still being written were left for the next run (1).",)),
    ]


def test_who_used_a_catalog_closes_it(site: Site) -> None:
    """Else its log would stay beside its file, and grow, for as long as the process lives."""
    site.land(0)
    log = site.settings["autoloader_home"] / "warehouse" / "catalog.db-wal"

    async def made_and_looked_at(ran: bool) -> Ingestion | None:  # noqa: FBT001 - which half it is
        async with site.service() as service:
            if not ran:
                return await site.create(service)
            assert len(site.ids(service)) == 1000
            assert log.exists()
        return None

    ingestion = asyncio.run(made_and_looked_at(ran=False))
    assert ingestion is not None
    with open_executor(Settings(**site.settings), os.environ, Redactor()) as executor:
        executor.execute(ingestion.id, Trigger.SCHEDULED, flow_run_id="one")
        assert log.exists()
    assert not log.exists()
    asyncio.run(made_and_looked_at(ran=True))
    assert not log.exists()


@contextmanager
def written_to(path: Path, *, grows: bool) -> Iterator[None]:
    """Somebody writes to the file all the while."""
    stopped = threading.Event()

    def write() -> None:
        while grows and not stopped.wait(0.02):
            with path.open("ab") as file:
                file.write(b"\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stopped.set()
        writer.join()
