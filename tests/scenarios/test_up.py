"""`autoloader up` whole: a real Prefect server, API and worker, worked with, killed in parts, and stopped."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.supervision.home import LOCK
from tests.support.command import Home
from tests.support.odd_server import odd_server
from tests.support.servers import free_ports, is_alive
from tests.support.service_process import land, until
from tests.support.up_process import GONE_S, READY_S, UpProcess, started_up

SECRET = "a-key-that-nobody-may-see"


def gone(processes: list[psutil.Process]) -> None:
    """Wait until none of them is left."""
    until(lambda: not any(is_alive(one.pid) for one in processes), GONE_S, f"all of {processes} are gone")


@pytest.mark.timeout(1_200)
def test_one_machine_in_one_word(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started_up(home, environ={"SECRET_KEY": SECRET}) as up:
        told = up.ready()
        assert (told["status"], told["pid"], told["home"]) == ("ready", up.process.pid, str(home))
        assert set(told["children"]) == {"api", "prefect", "worker"}
        assert up.log.index("The worker is ready.") > up.log.index("The Prefect server is ready.")
        # It was not said to be away while it came up.
        assert "Failed to connect to Prefect server" not in up.log
        _work(up, told, tmp_path)
        _on_the_database(up, told, home)
        _second_is_refused(home, up)
        _killed_part_comes_back(up, told)
        below = up.below()
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(GONE_S) == 0
        gone(below)
        assert SECRET not in up.log
        assert (home / "prefect" / "prefect.db").exists()

    # Its runs stand still when they have begun, as nobody does who can be asked to end.
    with started_up(home, environ={"AUTOLOADER_FAILPOINT": "batch_claimed:after:pause"}) as up:
        told = up.ready()
        # What was kept is there again.
        assert [one["name"] for one in _json(up, told, "list")] == ["Orders"]
        land(tmp_path / "landing", 2, 1, records=10)
        _json(up, told, "run", "Orders")
        until(lambda: any(map(_stands_still, up.below())), GONE_S, lambda: f"the run is at work\n{up.log}")
        below = up.below()
        up.process.kill()
        gone(below)


def _stands_still(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def _work(up: UpProcess, told: dict[str, Any], folder: Path) -> None:
    """Make an ingestion, run it by Prefect, and look at it, all by the command line."""
    land(folder / "landing", 0, 2, records=10)
    definition = json.dumps(
        {
            "name": "Orders",
            "source": {"path": str(folder / "landing"), "file_pattern": "*.json"},
            "destination": {"database": "shop", "table": "orders"},
            # It does not come while the test runs.
            "schedule": {"frequency": "custom", "cron_expression": "0 0 1 1 *"},
        }
    )
    _json(up, told, "create", "-f", "-", stdin=definition)
    # Where the server is too slow for the request, the reconciler makes it.
    until(lambda: _json(up, told, "show", "Orders")["prefect_deployment_id"], READY_S, "it has its deployment")
    run = _json(up, told, "run", "Orders", "--wait")
    assert (run["status"], run["rows"]["loaded"]) == ("success", 20)
    if run["method"] != "prefect":
        # The machine was too slow for it.
        until(lambda: _json(up, told, "run", "Orders", "--wait")["method"] == "prefect", READY_S, "a run is Prefect's")
    again = up.ingestions("run", "Orders", "--follow", server=told["api_url"])
    assert (again.status, "nothing new, 2 files known" in again.stdout) == (0, True), again
    assert "run_begins" in again.stderr
    assert "success, nothing new, 2 files known" in again.stderr
    assert len(_json(up, told, "runs", "Orders")) >= 2
    logs = up.ingestions("logs", "Orders", run["id"], server=told["api_url"])
    assert "run_ends status=success files=2 rows=20" in logs.stdout


def _json(up: UpProcess, told: dict[str, Any], *arguments: str, stdin: str = "") -> Any:
    done = up.ingestions(*arguments, "--output", "json", server=told["api_url"], stdin=stdin)
    assert done.status == 0, f"{done.stdout}{done.stderr}\n{up.log}"
    return done.json


def _on_the_database(up: UpProcess, told: dict[str, Any], home: Path) -> None:
    """Beside it, a command on its database finds its Prefect server by itself."""
    shell = Home(home, {"AUTOLOADER_HOME": str(home)})

    def runs_by_prefect() -> bool:
        done = shell.run("ingestions", "run", "Orders", "--wait", "--output", "json")
        assert done.status == 0, done
        return bool(done.json["method"] == "prefect")

    until(runs_by_prefect, READY_S, lambda: f"Prefect is found\n{up.log}")
    assert _json(up, told, "runs", "Orders")[0]["method"] == "prefect"
    off = Home(home, {"AUTOLOADER_HOME": str(home), "PREFECT_API_URL": ""})
    assert off.run("ingestions", "run", "Orders", "--wait", "--output", "json").json["method"] == "direct"


def _second_is_refused(home: Path, up: UpProcess) -> None:
    done = Home(home, {"AUTOLOADER_HOME": str(home)}).run("up", "--free-ports")
    assert (done.status, done.stdout) == (1, "")
    assert (
        f"Error (already_up): `autoloader up` is at work in {home} already, as process {up.process.pid}." in done.stderr
    )
    assert f"kill {up.process.pid}" in done.stderr


def _killed_part_comes_back(up: UpProcess, told: dict[str, Any]) -> None:
    psutil.Process(told["children"]["worker"]).kill()
    psutil.Process(told["children"]["api"]).kill()
    up.said("Everything is ready again.")
    assert [one["name"] for one in _json(up, told, "list")] == ["Orders"]


# --- what is refused before anything is started --------------------------------------------------------------------


def refused(folder: Path, *arguments: str, status: int = 1, **environ: str) -> dict[str, Any]:
    """The error that `up` ends in."""
    done = Home(folder, {"AUTOLOADER_HOME": str(folder / "home"), **environ}).run("up", *arguments, "--output", "json")
    assert done.status == status, done
    found: dict[str, Any] = done.json
    assert "Starting" not in done.stderr
    return found


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with odd_server() as one:
        taken, free = one.port, free_ports(1)[0]
        told = refused(tmp_path, "--port", str(taken), "--prefect-port", str(free))
        assert told["code"] == "port_taken"
        assert told["detail"].startswith(f"Port {taken} of 127.0.0.1 is taken. Process ")
        assert "--port" in told["remedy"]
        assert "--free-ports" in told["remedy"]
        told = refused(tmp_path, "--port", str(free), "--prefect-port", str(taken))
        assert "--prefect-port" in told["remedy"]
    told = refused(tmp_path, "--port", str(free), "--prefect-port", str(free), status=2)
    assert told["detail"] == f"Port {free} is to be the Prefect server's and the API's."


def test_a_prefect_server_of_another_version_is_said(tmp_path: Path) -> None:
    with odd_server() as one:
        one.body = b'"2.20.9"'
        told = refused(tmp_path, "--free-ports", PREFECT_API_URL=f"{one.base}/api")
    assert told["code"] == "prefect_version"
    assert told["detail"] == (
        f"The Prefect server at {one.base}/api is of version 2.20.9, and this program works with 3.8."
    )
    assert "unset PREFECT_API_URL" in told["remedy"]


def test_what_is_no_prefect_server_is_said_and_the_password_in_its_address_is_not(tmp_path: Path) -> None:
    with odd_server() as one:
        one.body = b"<html>Another program</html>"
        address = f"{one.base}/api"
        with_password = address.replace("://", f"://me:{SECRET}@")
        told = refused(tmp_path, "--free-ports", PREFECT_API_URL=with_password)
    assert told["code"] == "prefect_unusable"
    assert told["detail"] == (
        f"PREFECT_API_URL is {address}, and what answers there cannot be used. It is not Prefect's API."
    )
    assert "unset PREFECT_API_URL" in told["remedy"]
    told = refused(tmp_path, "--free-ports", status=2, PREFECT_API_URL="localhost:4200/api")
    assert told["code"] == "invalid_field"
    assert "PREFECT_API_URL" in told["detail"]


def test_other_machines_are_kept_out(tmp_path: Path) -> None:
    told = refused(tmp_path, "--host", "0.0.0.0", status=2)  # noqa: S104 - it is refused
    assert told["code"] == "tokens_required"
    assert not (tmp_path / "home" / LOCK).exists()


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    told = refused(tmp_path, "--free-ports")
    assert told["code"] == "home_unwritable"
    assert str(tmp_path / "home") in told["detail"]


def test_an_api_that_cannot_start_is_given_up(tmp_path: Path) -> None:
    with odd_server() as one:
        # A Prefect server that is slow to come is waited for; a database that is none is not.
        one.status = 503
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "autoloader.db").write_text("no database at all" * 100)
        environ = {"AUTOLOADER_HOME": str(tmp_path / "home"), "PREFECT_API_URL": f"{one.base}/api"}
        done = Home(tmp_path, environ).run("up", "--free-ports")
    assert done.status == 1
    assert "ledger_unreadable" in done.stderr
    assert "Error (child_failed): The API cannot be started: it ended 3 times before it was ready" in done.stderr
    assert "nothing is left running" not in done.stderr
