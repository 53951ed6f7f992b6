"""A test that fails by chance is looked at again, in the open; one that fails for a reason still ends the run."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Fails when it is run for the first time.
BY_CHANCE = """
from pathlib import Path
def test_{name}():
    before = Path(__file__ + ".{name}")
    if not before.exists():
        before.touch()
        raise AssertionError("the first time")
"""
ALWAYS = "def test_always(): assert False\n"
GREEN = "def test_green(): pass\n"
DIES = "import os\ndef test_dies(): os._exit(3)\n"


@dataclass(frozen=True)
class Case:
    tests: dict[str, str]
    status: int
    looks: bool
    arguments: tuple[str, ...] = ("-n", "0")


def chance(*names: str) -> str:
    return "".join(BY_CHANCE.format(name=name) for name in names)


CASES = {
    "nothing failed": Case({"tests/test_it.py": GREEN}, 0, looks=False),
    "by chance": Case({"tests/test_it.py": GREEN + chance("one", "two")}, 0, looks=True),
    "by chance, in several processes": Case(
        {"tests/test_it.py": GREEN + chance("one")}, 0, looks=True, arguments=("-n", "2")
    ),
    "for a reason": Case({"tests/test_it.py": GREEN + ALWAYS}, 1, looks=True),
    "one by chance, one for a reason": Case({"tests/test_it.py": chance("one") + ALWAYS}, 1, looks=True),
    "too many": Case({"tests/test_it.py": chance("one", "two", "three")}, 1, looks=False),
    "what draws at random": Case({"tests/crash/test_it.py": chance("one")}, 1, looks=False),
    "with its process": Case({"tests/test_it.py": DIES}, 1, looks=False, arguments=("-n", "1")),
    "a file that cannot be read": Case({"tests/test_it.py": "("}, 2, looks=False),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_looked_at_again(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for path, text in case.tests.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    ran = subprocess.run(
        [sys.executable, ROOT / "tests" / "second_look.py", *case.arguments, "tests"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == case.status, ran.stdout + ran.stderr
    assert ("once more" in ran.stdout) is case.looks
    assert ("UNSTEADY" in ran.stdout) is (case.looks and case.status == 0)
