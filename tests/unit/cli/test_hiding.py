"""A token on the command line: gone from what everybody on the machine can read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.cli.hiding import secret_spans

ROOT = Path(__file__).resolve().parents[3]
CODE = """
import sys
from app.cli import main
import app.cli
app.cli._carry_out = lambda: print(open("/proc/self/cmdline").read().replace(chr(0), " "), sys.argv[1:])
main()
"""


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["list", "--token", "secret-1", "x"], ["list", "--token", "********", "x"]),
        (["list", "--token=secret-1"], ["list", "--token=********"]),
        (["--token", "a", "--token=bc"], ["--token", "*", "--token=**"]),
        # What it says is the option's value, whatever it is called.
        (["--token", "--token", "x"], ["--token", "*******", "x"]),
        (["--token-file", "name", "--token", ""], ["--token-file", "name", "--token", ""]),
        (["--token"], ["--token"]),
    ],
)
def test_values_are_found_and_nothing_else(given: Sequence[str], left: Sequence[str]) -> None:
    line = "\0".join([*given, ""]).encode()
    shown = bytearray(line)
    for begin, length in secret_spans(line.split(b"\0"), b"--token"):
        shown[begin : begin + length] = b"*" * length
    assert shown.decode() == "\0".join([*left, ""])


@pytest.mark.parametrize("given", [("--token", "al_secret-1"), ("--token=al_secret-1",)])
def test_the_system_does_not_show_a_token_of_a_command(given: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE, "ingestions", "list", *given],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    shown, _, kept = done.stdout.rpartition("[")
    assert "ingestions list --token" in shown
    assert "al_secret-1" not in shown
    assert "al_secret-1" in kept
