"""What the README and the tutorial tell a reader to type works, and prints what they say.

Blocks after `<!-- runs -->` run in one shell session a page; a block after `<!-- prints -->` is held, line by line,
against what the block before it printed on standard output. In it `…` stands for anything.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.docs.pages import blocks, read

TIMEOUT_S = 500
END_OF_BLOCK = "--- end of block ---"


def run_blocks(texts: list[str], folder: Path) -> list[str]:
    """What each block prints; fails at the first that does not succeed."""
    script = "set -euo pipefail\n" + "".join(f"{text}\necho '{END_OF_BLOCK}'\n" for text in texts)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.split(f"{END_OF_BLOCK}\n")


def missing_lines(expected: str, printed: str) -> list[str]:
    """The expected lines that were not printed, in their order."""
    lines = iter(line.rstrip() for line in printed.splitlines())
    patterns = [(line, ".*".join(map(re.escape, re.split(r"\s*…\s*", line)))) for line in expected.splitlines()]
    return [line for line, pattern in patterns if not any(re.fullmatch(pattern, found) for found in lines)]


@pytest.mark.parametrize("page", ["/README.md", "tutorial/first-table.md"])
def test_what_a_page_tells_to_type_works(page: str, tmp_path: Path) -> None:
    found = blocks(read(page))
    steps = [(step, after) for step, after in pairwise([*found, None]) if step is not None and step.mark == "runs"]
    assert steps, "the page has nothing to run"
    printed = run_blocks([step.text for step, _ in steps], tmp_path)
    for (_, after), output in zip(steps, printed, strict=False):
        if after is not None and after.mark == "prints":
            assert missing_lines(after.text, output) == [], output


def test_a_line_that_is_not_printed_is_found() -> None:
    assert missing_lines("one\nt…o\nfour\n", "one\nthe two\nthree\n") == ["four"]


def test_a_block_that_fails_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="before"):
        run_blocks(["echo before", "false", "echo after"], tmp_path)
