from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.domain.events import FIELDS, EventLog, bound, in_context

ROOT = Path(__file__).resolve().parents[2]
TELL = """
import sys
from app.domain.events import EventLog
from app.telemetry import configure_logging
configure_logging(verbose={verbose})
log = EventLog("app.services.somewhere")
log.info("swept", size_bytes=3, path="a%sb")
log.warning("100% broken", reason="ü")
print("structlog" in sys.modules, "rich" in sys.modules)
"""


def told(*, verbose: bool) -> subprocess.CompletedProcess[str]:
    code = TELL.format(verbose=verbose)
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )


def test_events_are_lines_of_json_on_stderr() -> None:
    swept, broken = (json.loads(line) for line in told(verbose=True).stderr.splitlines())
    assert swept.pop("timestamp").endswith("Z")
    assert swept == {"event": "swept", "level": "info", "size_bytes": 3, "path": "a%sb"}
    assert (broken["event"], broken["level"], broken["reason"]) == ("100% broken", "warning", "ü")


def test_who_did_not_ask_is_told_nothing_and_pays_for_nothing() -> None:
    done = told(verbose=False)
    assert done.stderr == ""
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("verbose", [True, False])
def test_to_be_configured_twice_changes_nothing(*, verbose: bool) -> None:
    code = TELL.format(verbose=verbose).replace("log =", f"configure_logging(verbose={verbose}); log =")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stderr.splitlines()) == 2 * verbose


PROGRAM = """
import logging
from app.domain.events import EventLog
from app.telemetry import configure_logging
redactor = configure_logging(verbose=True)
redactor.learn(["a-real-secret"])
log = EventLog("app.somewhere")
log.info("told", what="it is a-real-secret", password="anything", url="https://u:p4ssword@h/")
try:
    raise ValueError("a-real-secret")
except ValueError:
    log.exception("failed")
    logging.getLogger("library").exception("a-real-secret too")
"""


def test_no_line_holds_a_secret() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert "a-real-secret" not in done.stderr
    assert "p4ssword" not in done.stderr
    first, second, *rest = done.stderr.splitlines()
    told = json.loads(first)
    assert (told["what"], told["password"], told["url"]) == ("it is ***", "***", "https://u:***@h/")
    assert "ValueError: ***" in json.loads(second)["exception"]
    assert rest[0] == "ERROR:library:*** too"
    assert rest[-1] == "ValueError: ***"
    assert done.stdout == ""


HANDLERS = """
import logging, sys
from app.telemetry import configure_logging, redact_handlers, say_at_start
handler = logging.StreamHandler(sys.stderr)
handler.setFormatter(logging.Formatter("theirs %(message)s"))
logging.getLogger("theirs").addHandler(handler)
logging.getLogger("plain").addHandler(logging.StreamHandler(sys.stderr))
redactor = configure_logging(verbose=True)
redact_handlers(redactor, "theirs", "plain", "nobodys")
redactor.learn(["a-real-secret"])
say_at_start("Database initialized")
logging.getLogger("theirs").error("it is a-real-secret")
logging.getLogger("plain").error("so is a-real-secret")
"""


def test_handlers_that_others_set_up_hide_secrets_and_keep_their_form() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANDLERS], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    first, *rest = done.stderr.splitlines()
    assert json.loads(first)["event"] == "Database initialized"
    assert "theirs it is ***" in rest
    assert "so is ***" in rest
    assert "a-real-secret" not in done.stderr


def test_what_is_bound_is_told_with_every_event_of_the_work_and_of_no_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "app")
    log = EventLog("app.tests")
    with bound(run_id="r", request_id="q"):
        with bound(run_id="inner"):
            log.info("inside", size=1)
        thread = threading.Thread(target=in_context(lambda: log.info("threaded")))
        log.info("own", run_id="named")
    thread.start()
    thread.join()
    log.info("outside")
    assert {record.message: getattr(record, FIELDS) for record in caplog.records} == {
        "inside": {"run_id": "inner", "request_id": "q", "size": 1},
        "own": {"run_id": "named", "request_id": "q"},
        "threaded": {"run_id": "r", "request_id": "q"},
        "outside": {},
    }


UNEXPECTED = """
import sys
from app import cli
from app.domain.errors import SourceUnreachableError
from app.telemetry import configure_logging

def carry_out():
    configure_logging(verbose=True).learn(["a-real-secret"])
    raise {error}

cli._carry_out = carry_out
sys.argv = ["autoloader", *{arguments}]
cli.main()
"""


@pytest.mark.parametrize("error", ["ValueError", "SourceUnreachableError"])
@pytest.mark.parametrize("arguments", [[], ["--output", "json"], ["--verbose"]])
def test_what_a_command_says_of_an_error_holds_no_secret(error: str, arguments: list[str]) -> None:
    code = UNEXPECTED.format(error=f"{error}('It said a-real-secret.')", arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "It said ***." in done.stdout + done.stderr
    assert "a-real-secret" not in (done.stdout + done.stderr).replace("'It said a-real-secret.'", "")
