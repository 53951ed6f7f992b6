"""`scripts/migrate_to_prefect.py`, and commands on the database itself, against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

from app.domain.ingestions import IngestionStatus
from app.domain.service import NewIngestion
from app.persistence.service import keyring, open_service_store
from tests.support.command import ROOT, Home
from tests.support.prefect_server import PrefectServer
from tests.support.servers import free_ports


def _home(folder: Path) -> tuple[str, str]:
    """A database with two scheduled ingestions and one that is not; its address and its installation's tag."""
    url = f"sqlite:///{folder}/autoloader.db"
    store = open_service_store(url, keyring(url, None, None, folder), lambda _values: None)
    for schedule in ({"frequency": "hourly"}, {"frequency": "daily", "time": "14:30"}, None):
        name = uuid.uuid4().hex
        document = {"source": {"type": "local", "path": "/in"}, **({"schedule": schedule} if schedule else {})}
        store.add_ingestion(NewIngestion(name, "default", name, IngestionStatus.ACTIVE, "local.a.b", document))
    tag = f"installation-{store.installation_id()}"
    store.dispose()
    return url, tag


def _migrate(folder: Path, url: str, api_url: str, option: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "AUTOLOADER_HOME": str(folder), "DATABASE_URL": url, "PREFECT_API_URL": api_url}
    command = [sys.executable, str(ROOT / "scripts" / "migrate_to_prefect.py"), option]
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, check=False)


def test_what_is_missing_is_told_then_made_then_there(prefect: PrefectServer, tmp_path: Path) -> None:
    url, tag = _home(tmp_path)
    told = _migrate(tmp_path, url, prefect.api_url, "--dry-run")
    assert (told.returncode, told.stderr) == (0, "")
    assert "2 ingestions have a schedule, 0 have a deployment already." in told.stdout
    assert prefect.deployments(tag) == []
    done = _migrate(tmp_path, url, prefect.api_url, "--execute")
    assert done.returncode == 0, done.stdout
    assert "2 created, 0 updated, 0 failed." in done.stdout
    crons = sorted(one["schedules"][0]["schedule"]["cron"] for one in prefect.deployments(tag))
    assert crons == ["0 * * * *", "30 14 * * *"]
    again = _migrate(tmp_path, url, prefect.api_url, "--execute")
    assert "2 have a deployment already." in again.stdout
    assert "0 created, 0 updated, 0 failed." in again.stdout


def test_without_prefect_it_says_so_and_fails(tmp_path: Path) -> None:
    url, _ = _home(tmp_path)
    (port,) = free_ports(1)
    away = _migrate(tmp_path, url, f"http://127.0.0.1:{port}/api", "--execute")
    assert away.returncode == 1
    assert away.stderr.startswith("scheduler_unavailable: ")
    off = _migrate(tmp_path, url, "", "--dry-run")
    assert off.returncode == 1
    assert "PREFECT_API_URL is not set." in off.stderr


def test_commands_on_the_database_tell_prefect_what_is_wanted(prefect: PrefectServer, tmp_path: Path) -> None:
    url, tag = _home(tmp_path)
    away = Home(tmp_path, {"AUTOLOADER_HOME": str(tmp_path), "DATABASE_URL": url})
    there = Home(tmp_path, {**away.environ, "PREFECT_API_URL": prefect.api_url})
    told = there.json("migrate-to-prefect", "--dry-run")
    assert (told["scheduled"], told["present"], len(told["created"]), told["dry_run"]) == (2, 0, 2, True)
    assert prefect.deployments(tag) == []
    assert len(there.json("migrate-to-prefect", "--execute")["created"]) == 2
    (tmp_path / "definition.yaml").write_text(
        "name: Third\nsource: {path: /in, type: local}\ndestination: {database: a, table: b}\n"
        "schedule: {frequency: daily, time: 07:30}\n"
    )
    made = there.json("ingestions", "create", "-f", "definition.yaml")
    deployed = {one["id"]: one for one in prefect.deployments(tag)}
    assert len(deployed) == 3
    assert deployed[made["prefect_deployment_id"]]["schedules"][0]["schedule"]["cron"] == "30 7 * * *"
    assert there.json("ingestions", "pause", "Third") == {"status": "paused"}
    assert next(one for one in prefect.deployments(tag) if one["id"] == made["prefect_deployment_id"])["paused"]
    # Without Prefect it is kept all the same, and who asked is told.
    resumed = away.run("ingestions", "resume", "Third")
    assert (resumed.status, resumed.stdout) == (0, "Third is active.\n")
    assert "Scheduling unavailable" in resumed.stderr
    there.run("ingestions", "delete", "Third")
    assert len(prefect.deployments(tag)) == 2
