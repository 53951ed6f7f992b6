"""A command's own output goes to a disk that is full, or nowhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.command import ROOT, TIMEOUT_S
from tests.support.worksite import Worksite

FULL = "/dev/full"
# To a shell, a stream that is not there.
CLOSED = "&-"


def run(site: Worksite, *arguments: str, stdout: str = "", stderr: str = "") -> subprocess.CompletedProcess[str]:
    """A command with its streams in those files; those without one are kept."""
    script = f'exec "$@" {f">{stdout}" if stdout else ""} {f"2>{stderr}" if stderr else ""}'
    return subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-P", "-m", "app", *arguments],
        cwd=site.home,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize("more", [("--output", "json"), ()])
def test_an_answer_that_cannot_be_written_is_an_error(site: Worksite, more: tuple[str, ...]) -> None:
    site.land(1)
    done = run(site, "load", str(site.landing), "--to", site.table, *more, stdout=FULL)
    assert done.returncode == 1
    assert "Error (output_failed)" in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    # The load itself was done.
    site.assert_exact()


def test_a_load_goes_on_where_nobody_can_be_told(site: Worksite) -> None:
    site.land(1)
    # Every step is told.
    done = run(site, "load", str(site.landing), "--to", site.table, "--verbose", stderr=FULL)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Loaded 1 file")
    site.assert_exact()


def test_neither_stream_takes_anything(site: Worksite) -> None:
    done = run(site, "table", site.table, stdout=FULL, stderr=FULL)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize("more", [("--output", "json"), ()])
def test_an_answer_to_a_closed_stream_is_an_error(site: Worksite, more: tuple[str, ...]) -> None:
    """Nothing that the command opens takes its place either, such as the ledger."""
    site.land(1)
    done = run(site, "load", str(site.landing), "--to", site.table, *more, stdout=CLOSED)
    assert done.returncode == 1
    assert "Error (output_failed)" in done.stderr
    assert "it is closed" in done.stderr
    assert "Traceback" not in done.stderr
    site.assert_exact()


def test_a_load_is_silent_where_there_is_nobody_to_tell(site: Worksite) -> None:
    site.land(1)
    done = run(site, "load", str(site.landing), "--to", site.table, "--verbose", stderr=CLOSED)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Loaded 1 file")
    site.assert_exact()


def test_both_streams_are_closed(site: Worksite) -> None:
    site.land(1)
    done = run(site, "load", str(site.landing), "--to", site.table, stdout=CLOSED, stderr=CLOSED)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    site.assert_exact()
