"""What runs most often, a load with nothing new, imports what it needs and starts no process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# What other loads and other commands need, each of them a good part of the time that this one may take.
NEEDLESS = (
    "alembic",
    "app.engines.embedded.engine",
    "duckdb",
    "isal",
    "obstore",
    "pyarrow",
    "rich",
    "sqlalchemy.dialects.postgresql",
    "structlog",
)
CODE = f"""
import sys, app.cli as cli
sys.argv = ['autoloader', *sys.argv[1:]]
try: cli.main()
except SystemExit as end: assert not end.code, end.code
print([m for m in {NEEDLESS!r} if m in sys.modules])
"""


WATCHED = f"""
import sys, threading
start = threading.Thread.start
def told(thread):
    print("catalog", "pyiceberg" in sys.modules)
    start(thread)
threading.Thread.start = told
{CODE}
"""


def load(home: Path, source: Path, code: str = CODE, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", code, "load", str(source), "--to", "db.events", "--output", "json"],
        cwd=home,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "AUTOLOADER_HOME": str(home), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def loaded(tmp_path: Path) -> tuple[Path, Path]:
    """A home and a source of which every file is loaded."""
    home, source = tmp_path / "home", tmp_path / "source"
    home.mkdir()
    source.mkdir()
    (source / "a.json").write_text('{"id": 1}\n')
    done = load(home, source)
    assert json.loads(done.stdout.splitlines()[0])["files"]["loaded"] == 1, done.stderr
    return home, source


def test_a_load_with_nothing_new_imports_nothing_that_it_has_no_use_for(loaded: tuple[Path, Path]) -> None:
    done = load(*loaded)
    report, imported = done.stdout.splitlines()
    assert json.loads(report)["files"]["known"] == 1
    assert imported == "[]"


def test_a_load_with_nothing_new_starts_no_process(loaded: tuple[Path, Path]) -> None:
    home, source = loaded
    deadly = {"AUTOLOADER_FAILPOINT": "child_started:before:kill"}
    done = load(home, source, **deadly)
    assert (done.returncode, done.stderr) == (0, "")
    (source / "b.json").write_text('{"id": 2}\n')
    assert load(home, source, **deadly).returncode == -9


def test_processes_come_up_first_where_files_came_after_the_last_load(loaded: tuple[Path, Path]) -> None:
    home, source = loaded
    (source / "b.json").write_text('{"id": 2}\n')
    # Each process of the engine has a thread that begins before it.
    assert load(home, source, WATCHED).stdout.splitlines()[0] == "catalog False"
    # A file that is older than the last load is found all the same, a little later.
    (source / "c.json").write_text('{"id": 3}\n')
    os.utime(source / "c.json", (1, 1))
    begins, *_, report, _ = load(home, source, WATCHED).stdout.splitlines()
    assert begins == "catalog True"
    assert json.loads(report)["files"] == {"loaded": 1, "failed": 0, "skipped": 0, "known": 2}
