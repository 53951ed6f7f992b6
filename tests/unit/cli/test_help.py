"""Help is quick and complete: it imports nothing heavy, and every option that works says what it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# Not pydantic: Typer takes it where it is installed.
HEAVY = (
    "alembic",
    "duckdb",
    "fastapi",
    "httpx",
    "isal",
    "obstore",
    "prefect",
    "psutil",
    "pyarrow",
    "pyiceberg",
    "sqlalchemy",
    "structlog",
)


def run(*arguments: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "200", "TERM": "dumb", **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    "command", [(), ("load",), ("plan",), ("files",), ("table",), ("ledger", "clear"), ("up",), ("ingestions", "run")]
)
def test_help_imports_nothing_heavy(command: tuple[str, ...]) -> None:
    code = (
        "import sys, app.cli as cli\n"
        f"sys.argv = ['autoloader', *{command!r}, '--help']\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run("-c", code).splitlines()[-1] == "HEAVY []"


def test_help_names_the_commands() -> None:
    shown = run("-m", "app", "--help")
    assert all(
        name in shown for name in ("load", "plan", "files", "table", "catalogs", "ledger", "--install-completion")
    )


def test_what_is_not_built_is_not_offered() -> None:
    shown = run("-m", "app", "load", "--help")
    assert "--file-pattern" in shown
    assert "--merge-keys" not in shown


def test_the_shell_completes_commands_and_options() -> None:
    script = run("-m", "app", "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_AUTOLOADER_COMPLETE=complete_bash" in script
    words = {"COMP_WORDS": "autoloader lo", "COMP_CWORD": "1", "_AUTOLOADER_COMPLETE": "complete_bash"}
    assert run("-m", "app", **words).split() == ["load"]
    words = {"COMP_WORDS": "autoloader load --file-p", "COMP_CWORD": "2", "_AUTOLOADER_COMPLETE": "complete_bash"}
    assert run("-m", "app", **words).split() == ["--file-pattern"]
