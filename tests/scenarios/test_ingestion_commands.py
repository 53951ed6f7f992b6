"""`autoloader ingestions` as people type it: what it prints, and its exit statuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.command import Done, Home
from tests.support.odd_server import odd_server
from tests.support.service_process import PATIENT_S, ServiceProcess, land, until


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "landing").mkdir()
    # What begins a run is told how it ended, however long that takes.
    waits = {"AUTOLOADER_DIRECT_RUN_WAIT_S": str(PATIENT_S)}
    return Home(tmp_path, {"AUTOLOADER_HOME": str(tmp_path), "AUTOLOADER_SETTLE_S": "0", **waits})


def refused(done: Done, status: int, code: str) -> str:
    """The error that a command ended in, as it is told to people."""
    assert (done.status, done.stdout) == (status, ""), done
    first, _, _ = done.stderr.partition("\n")
    assert first.startswith(f"Error ({code}): "), done
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_ingestion_from_its_definition_to_its_end(home: Home) -> None:
    # Who only looks makes nothing, and hears that he may be in the wrong folder.
    assert "Check AUTOLOADER_HOME" in refused(home.run("ingestions", "list"), 1, "ledger_unreadable")
    assert not (home.folder / "autoloader.db").exists()
    (home.folder / "landing" / "a.json").write_text('{"id": 1}\n{"id": 2}\n')
    (home.folder / "landing" / "b.json").write_text('{"id": ')
    definition = {"name": "Two files", "source": {"path": "landing"}, "destination": {"database": "d", "table": "t"}}
    (home.folder / "x.json").write_text(json.dumps(definition))
    made = home.run("ingestions", "create", "-f", "x.json")
    assert made.status == 0, made
    assert f"Making a new database (AUTOLOADER_HOME is {home.folder})." in made.stderr
    assert "landing → local.d.t.\n" in made.stdout
    assert "It has no schedule. Run it: autoloader ingestions run " in made.stdout

    run = home.run("ingestions", "run", "Two files", "--follow")
    assert run.status == 3, run
    assert ": partial, 1 file loaded, 1 failed, 2 rows, 20 B, " in run.stdout
    assert "b.json, line 1: " in run.stderr
    # Its log is told; what the run's own process writes besides is nobody's business here.
    assert run.stderr.count("  run_begins attempt=1\n") == 1
    assert '"event"' not in run.stderr
    assert home.json("ingestions", "run", "Two files", status=0)["status"] == "completed"
    logs = home.run("ingestions", "logs", "Two files")
    assert (logs.status, "\nsuccess, nothing new, 1 file known" in logs.stdout) == (0, True), logs
    assert [one["status"] for one in home.json("ingestions", "runs", "Two files")] == ["success", "partial"]

    assert "--yes" in refused(home.run("ingestions", "delete", "Two files", "--delete-table"), 2, "confirmation_needed")
    assert home.run("ingestions", "delete", "Two files").stdout.endswith("; local.d.t stays.\n")
    assert home.json("table", "d.t")["rows"] == 2
    missing = home.run("ingestions", "show", "Two files")
    assert "`autoloader ingestions list` shows those that there are." in refused(missing, 1, "not_found")


def test_what_is_wrong_is_said_with_its_remedy(home: Home) -> None:
    (home.folder / "x.yaml").write_text("name: [")
    refused(home.run("ingestions", "create", "-f", "x.yaml"), 2, "invalid_field")
    refused(home.run("ingestions", "list", "--token", "x"), 2, "invalid_field")
    (home.folder / "token").write_text(" \n")
    refused(home.run("ingestions", "list", "--server", "http://h", "--token-file", "token"), 2, "invalid_field")
    # What to do is what a command line can do.
    assert "Send {" not in refused(home.run("migrate-to-prefect"), 2, "confirmation_needed")
    # Nothing of this has made a database.
    assert not (home.folder / "autoloader.db").exists()


def test_a_token_from_the_environment_is_shown_to_the_server_alone(home: Home) -> None:
    with odd_server() as server:
        server.status = 401
        server.body = (
            b'{"code": "token_unknown", "detail": "Nobody has this token: al_secret_1.", "remedy": "Make one."}'
        )
        environ = {"AUTOLOADER_SERVER": server.base, "AUTOLOADER_TOKEN": "al_secret_1"}
        done = home.run("ingestions", "list", environ=environ)
        assert server.asked == [("GET", "/api/v1/ingestions?limit=101", "Bearer al_secret_1")]
    assert refused(done, 1, "token_unknown") == "Error (token_unknown): Nobody has this token: ***.\n  Make one.\n"


def test_who_waits_no_longer_leaves_the_run_to_itself(home: Home) -> None:
    (home.folder / "landing" / "a.json").write_text('{"id": 1}\n')
    definition = {"name": "Slow", "source": {"path": "landing"}, "destination": {"database": "d", "table": "t"}}
    (home.folder / "x.json").write_text(json.dumps(definition))
    home.json("ingestions", "create", "-f", "x.json")
    still = {"AUTOLOADER_FAILPOINT": "batch_claimed:after:pause", "AUTOLOADER_LEASE_S": "900"}
    process = home.process("ingestions", "run", "Slow", "--follow", environ=still)
    assert process.stderr is not None
    told = ""
    while "running\n" not in told:
        line = process.stderr.readline()
        assert line, told
        told += line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENT_S)
    assert (process.returncode, out) == (130, "")
    assert "goes on: autoloader ingestions logs -f " in err
    (begun,) = home.json("ingestions", "runs", "Slow")
    stands = until(lambda: standing(begun["id"]), 120, "the run stands still")
    assert stands is not None
    try:
        os.kill(stands.pid, signal.SIGCONT)
        ended = home.run("ingestions", "logs", "Slow", "--follow")
    finally:
        with suppress(psutil.NoSuchProcess):
            stands.kill()
    assert "success, 1 file loaded, 1 row" in ended.stdout


def standing(ingestion_run: str) -> psutil.Process | None:
    """The process of a run that stands still at its failpoint."""
    for process in psutil.process_iter(["cmdline", "status"]):
        if ingestion_run in (process.info["cmdline"] or ()) and process.info["status"] == psutil.STATUS_STOPPED:
            return process
    return None


def told_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """Lines that a command has told on stdout, up to one with these words."""
    assert process.stdout is not None
    told: list[str] = []
    while not told or words not in told[-1]:
        line = process.stdout.readline()
        assert line, (told, process.communicate())
        told.append(line)
    return told


@pytest.mark.timeout(1_200)
def test_a_viewer_follows_a_run_over_the_end_of_its_server(tmp_path: Path) -> None:
    environ = {
        "AUTOLOADER_FAILPOINT": "batch_claimed:after:pause",
        "AUTOLOADER_LEASE_S": "900",
        "AUTOLOADER_LOCAL_ROOTS": str(tmp_path / "landing"),
        "AUTOLOADER_SETTLE_S": "0",
    }
    service = ServiceProcess(tmp_path / "home", environ)
    service.home.mkdir()
    home = Home(service.home, {"AUTOLOADER_HOME": str(service.home)})
    land(tmp_path / "landing", 0, 1)
    viewer, operator = (
        {"AUTOLOADER_TOKEN": home.json("tokens", "create", "--role", role)["token"]} for role in ("viewer", "operator")
    )
    definition = {
        "name": "Slow",
        "source": {"path": str(tmp_path / "landing")},
        "destination": {"database": "d", "table": "t"},
    }
    (home.folder / "x.json").write_text(json.dumps(definition))
    server = ("--server", f"http://127.0.0.1:{service.port}")
    process: psutil.Process | None = None
    service.start()
    try:
        home.json("ingestions", "create", "-f", "x.json", *server, environ=operator)
        run = home.process("ingestions", "run", "Slow", "--follow", *server, environ=operator)
        runs = ("ingestions", "runs", "Slow", *server)
        (run_id,) = until(lambda: [one["id"] for one in home.json(*runs, environ=viewer)], 60, "it has begun")
        logs = home.process("ingestions", "logs", "Slow", "-f", *server, environ=viewer)
        # How the run stands. Its log is not waited for: it may stand still before the first lines of that are kept.
        told = told_until(logs, "running")
        stopped = home.process("ingestions", "logs", "Slow", "-f", *server, environ=viewer)
        told_until(stopped, "running")
        stopped.send_signal(signal.SIGINT)
        _, said = stopped.communicate(timeout=PATIENT_S)
        assert stopped.returncode == 130, said
        assert said.startswith(f"Not waited for any longer; run {run_id} goes on: autoloader ingestions logs -f ")
        process = until(lambda: standing(run_id), 120, "the run stands still")
        assert process is not None
        service.kill()
        service.start()
        os.kill(process.pid, signal.SIGCONT)
        # Not by `communicate`, which passes over what was read along with the lines before.
        assert logs.stdout is not None
        assert logs.stderr is not None
        with logs.stdout, logs.stderr:
            rest, notes = logs.stdout.read(), logs.stderr.read()
        assert logs.wait(PATIENT_S) == 0, notes
        out, followed = run.communicate(timeout=400)
        assert (run.returncode, ": success, 1 file loaded, 1,000 rows" in out) == (0, True), followed
        whole = home.run("ingestions", "logs", "Slow", *server, environ=viewer).stdout.splitlines()
    finally:
        service.stop()
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    stamped = [line for line in whole if "  " in line]
    assert "run_ends status=success" in stamped[-1]
    lines = [*"".join(told).splitlines(), *rest.splitlines()]
    assert [line for line in lines if line in stamped] == stamped
    assert lines[-1].startswith("success, 1 file loaded, 1,000 rows")
    assert [line for line in followed.splitlines() if line in stamped] == stamped
