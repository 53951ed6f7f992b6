"""A command is measured with everything that it starts."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bench import measuring
from bench.measuring import MB, Command, measure, process_memory_bytes, tree, tree_memory_bytes
from tests.support.servers import is_alive
from tests.unit.persistence.desk import until

# The parent waits for a line, so that the child is there when it is looked at.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "b = bytearray(80_000_000); print('there', flush=True); input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
input()
child.communicate("\\n")
"""
BURN = "import time\nwhile time.process_time() < 0.6: pass"


def python(tmp_path: Path, code: str, *, timeout_s: float = 120) -> Command:
    return Command((sys.executable, "-c", textwrap.dedent(code)), tmp_path, timeout_s=timeout_s)


def test_memory_is_that_of_the_whole_tree() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert list(tree(parent.pid)) == [parent.pid, child]
        assert process_memory_bytes(parent.pid) < 80 * MB < process_memory_bytes(child)
        assert tree_memory_bytes(parent.pid) > process_memory_bytes(child)
        parent.communicate("\n")
    assert process_memory_bytes(child) == 0


def test_a_peak_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"

    def look(pid: int) -> int:
        found = tree_memory_bytes(pid)
        if found > 90_000_000:
            seen.touch()
        return found

    monkeypatch.setattr(measuring, "tree_memory_bytes", look)
    code = """
    import pathlib, time
    held = bytearray(90_000_000)
    while not pathlib.Path("seen").exists():
        time.sleep(0.05)
    del held
    time.sleep(0.5)
    """
    assert 90 < measure(python(tmp_path, code)).peak_mb < 200


def test_cpu_time_is_that_of_children_too(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])"
    measured = measure(python(tmp_path, code))
    assert measured.cpu_s >= 0.6
    assert measured.wall_s >= 0.6


def test_output_status_and_settings_are_those_of_the_command(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['SAID'], os.getcwd()); sys.stderr.write('why'); sys.exit(3)"
    measured = measure(Command((sys.executable, "-c", code), tmp_path, {"SAID": "so"}))
    assert (measured.status, measured.stdout, measured.stderr) == (3, f"so {tmp_path}\n", "why")


def test_a_command_that_hangs_is_killed(tmp_path: Path) -> None:
    assert measure(python(tmp_path, "import time; time.sleep(600)", timeout_s=0.5)).status == -9


def test_nothing_of_a_command_is_left_running(tmp_path: Path) -> None:
    code = """
    import subprocess, sys
    print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
    """
    left = int(measure(python(tmp_path, code)).stdout)
    until(lambda: not is_alive(left))
